//! Metadata values.

use super::GgufError;
use super::reader::Reader;

/// The largest array in real files is a vocabulary or its merges; this is several times that.
const ARRAY_LEN_MAX: usize = 4 << 20;

/// A metadata value; numbers of all widths in the widest of their kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    Array(Vec<Value>),
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Value {
    pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, GgufError> {
        match reader.u32(key)? {
            ARRAY => {
                let code = reader.u32(key)?;
                let Some(bytes_min) = bytes_min(code) else {
                    return Err(reader.bad(key, &format!("an array of values of type {code} is not part of GGUF")));
                };
                let length = reader.count(key, bytes_min)?;
                if length > ARRAY_LEN_MAX {
                    return Err(reader.bad(key, &format!("array of {length} values; the limit is {ARRAY_LEN_MAX}")));
                }
                (0..length).map(|_| Self::scalar(reader, key, code)).collect::<Result<_, _>>().map(Self::Array)
            }
            code => Self::scalar(reader, key, code),
        }
    }

    fn scalar(reader: &mut Reader<'_>, key: &str, code: u32) -> Result<Self, GgufError> {
        Ok(match code {
            0 => Self::Unsigned(u8::from_le_bytes(reader.take(key)?).into()),
            1 => Self::Signed(i8::from_le_bytes(reader.take(key)?).into()),
            2 => Self::Unsigned(u16::from_le_bytes(reader.take(key)?).into()),
            3 => Self::Signed(i16::from_le_bytes(reader.take(key)?).into()),
            4 => Self::Unsigned(u32::from_le_bytes(reader.take(key)?).into()),
            5 => Self::Signed(i32::from_le_bytes(reader.take(key)?).into()),
            6 => Self::Float(f32::from_le_bytes(reader.take(key)?).into()),
            7 => Self::Flag(reader.take::<1>(key)? != [0]),
            TEXT => Self::Text(reader.text(key)?),
            10 => Self::Unsigned(u64::from_le_bytes(reader.take(key)?)),
            11 => Self::Signed(i64::from_le_bytes(reader.take(key)?)),
            12 => Self::Float(f64::from_le_bytes(reader.take(key)?)),
            code => return Err(reader.bad(key, &format!("a value of type {code} is not part of GGUF"))),
        })
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        if let Self::Float(x) = self { Some(*x) } else { None }
    }

    pub(crate) fn as_flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(*flag) } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Value]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    /// As JSON; `None` for arrays. A float that JSON cannot hold becomes null.
    pub(crate) fn as_json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Self::Unsigned(n) => (*n).into(),
            Self::Signed(n) => (*n).into(),
            Self::Float(x) => (*x).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Array(_) => return None,
        })
    }
}

/// Fewest bytes of a value in an array; arrays of arrays occur in no model.
fn bytes_min(code: u32) -> Option<usize> {
    match code {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        TEXT | 10..=12 => Some(8),
        _ => None,
    }
}
