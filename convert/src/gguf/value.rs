//! Metadata values. Arrays stay in the file and take no memory, whatever their claimed length.

use std::ops::Range;

use super::GgufError;
use super::reader::Reader;

/// Bound on array lengths; several times the largest vocabulary or list of merges.
const ARRAY_LEN_MAX: usize = 4 << 20;
/// Bound on arrays that are read at once, such as one value for each layer.
const JSON_ARRAY_LEN_MAX: usize = 1024;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    Text(String),
    Array(Array),
}

/// A number in the widest type of its kind, or a flag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
}

/// Location of an array whose elements have all been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Array {
    code: u32,
    length: usize,
    /// Byte range within the file.
    range: Range<usize>,
}

/// An element of an array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Element<'a> {
    Scalar(Scalar),
    Text(&'a str),
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Value {
    pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, GgufError> {
        match reader.u32(key)? {
            ARRAY => Array::read(reader, key).map(Self::Array),
            code => Ok(match Element::read(reader, key, code)? {
                Element::Scalar(scalar) => Self::Scalar(scalar),
                Element::Text(text) => Self::Text(text.to_owned()),
            }),
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_unsigned(&self) -> Option<u64> {
        if let Self::Scalar(scalar) = self { scalar.as_unsigned() } else { None }
    }

    pub(crate) fn as_flag(&self) -> Option<bool> {
        if let Self::Scalar(Scalar::Flag(flag)) = self { Some(*flag) } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&Array> {
        if let Self::Array(array) = self { Some(array) } else { None }
    }

    /// Values of a list that is short enough for one value a layer.
    pub(super) fn listed(&self) -> usize {
        self.as_array().map(|array| array.length).filter(|length| *length <= JSON_ARRAY_LEN_MAX).unwrap_or(0)
    }

    /// The value, of the `file` that it was read from, as JSON; `None` for arrays that are too long for one value a
    /// layer. A float that JSON cannot represent becomes null.
    pub(super) fn as_json(&self, file: &[u8]) -> Option<serde_json::Value> {
        match self {
            Self::Scalar(scalar) => Some(scalar.as_json()),
            Self::Text(text) => Some(text.as_str().into()),
            Self::Array(array) if array.length > JSON_ARRAY_LEN_MAX => None,
            Self::Array(array) => Some(array.elements(file).map(Element::as_json).collect()),
        }
    }
}

impl Scalar {
    fn as_json(self) -> serde_json::Value {
        match self {
            Self::Unsigned(n) => n.into(),
            Self::Signed(n) => n.into(),
            Self::Float(x) => x.into(),
            Self::Flag(flag) => flag.into(),
        }
    }

    fn as_unsigned(self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(n),
            Self::Signed(n) => u64::try_from(n).ok(),
            Self::Float(_) | Self::Flag(_) => None,
        }
    }
}

impl<'a> Element<'a> {
    fn read(reader: &mut Reader<'a>, key: &str, code: u32) -> Result<Self, GgufError> {
        use Scalar::{Flag, Float, Signed, Unsigned};
        Ok(Self::Scalar(match code {
            0 => Unsigned(u8::from_le_bytes(reader.take(key)?).into()),
            1 => Signed(i8::from_le_bytes(reader.take(key)?).into()),
            2 => Unsigned(u16::from_le_bytes(reader.take(key)?).into()),
            3 => Signed(i16::from_le_bytes(reader.take(key)?).into()),
            4 => Unsigned(u32::from_le_bytes(reader.take(key)?).into()),
            5 => Signed(i32::from_le_bytes(reader.take(key)?).into()),
            6 => Float(f32::from_le_bytes(reader.take(key)?).into()),
            7 => Flag(reader.take::<1>(key)? != [0]),
            TEXT => return reader.text(key).map(Self::Text),
            10 => Unsigned(u64::from_le_bytes(reader.take(key)?)),
            11 => Signed(i64::from_le_bytes(reader.take(key)?)),
            12 => Float(f64::from_le_bytes(reader.take(key)?)),
            code => return Err(reader.bad(key, &format!("a value of type {code} is not part of GGUF"))),
        }))
    }

    fn as_json(self) -> serde_json::Value {
        match self {
            Self::Scalar(scalar) => scalar.as_json(),
            Self::Text(text) => text.into(),
        }
    }

    pub(crate) fn as_text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_unsigned(self) -> Option<u64> {
        if let Self::Scalar(scalar) = self { scalar.as_unsigned() } else { None }
    }

    pub(crate) fn as_float(self) -> Option<f64> {
        if let Self::Scalar(Scalar::Float(x)) = self { Some(x) } else { None }
    }
}

impl Array {
    /// Checks every element and records the array's location.
    fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, GgufError> {
        let code = reader.u32(key)?;
        let Some(bytes_min) = bytes_min(code) else {
            return Err(reader.bad(key, &format!("an array of values of type {code} is not part of GGUF")));
        };
        let length = reader.count(key, bytes_min)?;
        if length > ARRAY_LEN_MAX {
            return Err(reader.bad(key, &format!("array of {length} values; the limit is {ARRAY_LEN_MAX}")));
        }
        let begin = reader.position();
        for _ in 0..length {
            Element::read(reader, key, code)?;
        }
        Ok(Self { code, length, range: begin..reader.position() })
    }

    /// Elements of the array in the `file` that it was read from.
    pub(super) fn elements<'a>(&self, file: &'a [u8]) -> impl Iterator<Item = Element<'a>> + use<'a> {
        let (code, length) = (self.code, self.length);
        let mut reader = Reader::new("".as_ref(), file.get(self.range.clone()).unwrap_or_default());
        // All elements were checked before.
        (0..length).map_while(move |_| Element::read(&mut reader, "", code).ok())
    }
}

/// Fewest bytes of an array element; `None` for arrays of arrays, which occur in no model.
fn bytes_min(code: u32) -> Option<usize> {
    match code {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        TEXT | 10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An encoded array.
    fn array(code: u32, length: u64, elements: &[u8]) -> Vec<u8> {
        [&ARRAY.to_le_bytes()[..], &code.to_le_bytes(), &length.to_le_bytes(), elements].concat()
    }

    fn read(bytes: &[u8]) -> Result<Value, GgufError> {
        Value::read(&mut Reader::new("x.gguf".as_ref(), bytes), "key")
    }

    #[test]
    fn arrays_take_no_memory_and_give_back_what_is_in_the_file() {
        let bytes = array(0, 1 << 20, &vec![7; 1 << 20]);
        let Ok(Value::Array(small)) = read(&bytes) else { panic!("an array") };
        assert_eq!(size_of_val(&small), 32, "and nothing behind a pointer");
        assert_eq!(small.elements(&bytes).filter(|element| element.as_unsigned() == Some(7)).count(), 1 << 20);

        let mut texts = Vec::new();
        for text in ["a", "", "\u{20ac}"] {
            texts.extend((text.len() as u64).to_le_bytes());
            texts.extend(text.as_bytes());
        }
        let bytes = array(TEXT, 3, &texts);
        let value = read(&bytes).unwrap();
        let found: Vec<_> = value.as_array().unwrap().elements(&bytes).filter_map(Element::as_text).collect();
        assert_eq!(found, ["a", "", "\u{20ac}"]);
        let bytes = array(6, 2, &[1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        let value = read(&bytes).unwrap();
        let found: Vec<_> = value.as_array().unwrap().elements(&bytes).filter_map(Element::as_float).collect();
        assert_eq!(found, [1.5, -2.0]);
    }

    #[test]
    fn arrays_that_are_not_whole_are_refused() {
        for (bytes, message) in [
            (array(0, 5, &[1; 4]), "more than the remaining 4 bytes can hold"),
            (array(TEXT, 2, &[0; 15]), "more than the remaining 15 bytes"),
            (array(TEXT, 1, &9u64.to_le_bytes()), "the file is truncated"),
            (array(TEXT, 1, &[&1u64.to_le_bytes()[..], &[0xff]].concat()), "not UTF-8"),
            (array(ARRAY, 1, &[0; 20]), "an array of values of type 9 is not part of GGUF"),
            (array(13, 1, &[0; 20]), "type 13"),
            (array(0, u64::MAX, &[0; 20]), "more than the remaining"),
        ] {
            let refused = read(&bytes).unwrap_err().to_string();
            assert!(refused.contains(message), "{refused}");
        }
    }
}
