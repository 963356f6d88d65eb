//! Tensors of requests: the values of each as JSON values, whichever way they came.

use serde_json::Value;

use crate::http::error::ApiError;

/// Elements of one tensor: inputs are texts and parameters, never arrays of numbers.
const ELEMENTS_MAX: usize = 1024;

/// An input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// Row after row.
    pub(crate) values: Vec<Value>,
}

/// The data types of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datatype {
    Bool,
    Int(Width),
    Uint(Width),
    Fp32,
    Fp64,
    /// Texts.
    Bytes,
}

/// Bytes of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl Datatype {
    /// # Errors
    /// No data type of the protocol, or one of which inputs here are none.
    pub(crate) fn parse(tensor: &str, name: &str) -> Result<Self, ApiError> {
        Ok(match name {
            "BOOL" => Self::Bool,
            "INT8" => Self::Int(Width::One),
            "INT16" => Self::Int(Width::Two),
            "INT32" => Self::Int(Width::Four),
            "INT64" => Self::Int(Width::Eight),
            "UINT8" => Self::Uint(Width::One),
            "UINT16" => Self::Uint(Width::Two),
            "UINT32" => Self::Uint(Width::Four),
            "UINT64" => Self::Uint(Width::Eight),
            "FP32" => Self::Fp32,
            "FP64" => Self::Fp64,
            "BYTES" => Self::Bytes,
            other => {
                let other: String = other.chars().take(20).collect();
                let taken = "BYTES, BOOL, INT8 to INT64, UINT8 to UINT64, FP32 or FP64";
                return Err(ApiError::param(
                    tensor,
                    format!("the datatype of input `{tensor}` is {other:?}; it has to be {taken}"),
                ));
            }
        })
    }

    /// The reason why a value is none of this datatype. Values of the wrong JSON type are refused where they are read, by name.
    fn fits(self, value: &Value) -> Result<(), String> {
        if value.is_null() {
            // What JSON has for numbers that it cannot write.
            return Err("no value: NaN, infinity and null are not taken".to_owned());
        }
        let bits = |width: Width| 8 * width as u32;
        let (least, most) = match self {
            Self::Int(width) => (-(1_i128 << (bits(width) - 1)), (1_i128 << (bits(width) - 1)) - 1),
            Self::Uint(width) => (0, (1_i128 << bits(width)) - 1),
            Self::Bool | Self::Fp32 | Self::Fp64 | Self::Bytes => return Ok(()),
        };
        let whole = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
        match whole.filter(|whole| !(least..=most).contains(whole)) {
            Some(whole) => Err(format!("{whole}, which its datatype does not hold: {least} to {most}")),
            None => Ok(()),
        }
    }

    /// Reads one element off `raw`; `None` if it ends too early.
    fn element<'r>(self, raw: &'r [u8]) -> Option<(Element<'r>, &'r [u8])> {
        let size = match self {
            Self::Bool => 1,
            Self::Int(width) | Self::Uint(width) => width as usize,
            Self::Fp32 => 4,
            Self::Fp64 => 8,
            Self::Bytes => {
                let (length, rest) = raw.split_first_chunk::<4>()?;
                let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
                return Some((Element::Text(text), rest));
            }
        };
        let (bytes, rest) = raw.split_at_checked(size)?;
        let mut wide = [0_u8; 8];
        wide[..size].copy_from_slice(bytes);
        Some((Element::Number(self.number(wide, size)), rest))
    }

    /// Of its little-endian bytes, the rest of which is zero.
    fn number(self, wide: [u8; 8], size: usize) -> Value {
        let low = || [wide[0], wide[1], wide[2], wide[3]];
        match self {
            Self::Bool => (wide[0] != 0).into(),
            Self::Int(_) => {
                let unused = 64 - 8 * size;
                ((i64::from_le_bytes(wide) << unused) >> unused).into()
            }
            Self::Fp32 => f64::from(f32::from_le_bytes(low())).into(),
            Self::Fp64 => f64::from_le_bytes(wide).into(),
            Self::Uint(_) | Self::Bytes => u64::from_le_bytes(wide).into(),
        }
    }
}

enum Element<'r> {
    Number(Value),
    Text(&'r [u8]),
}

/// The number of elements of a shape.
///
/// # Errors
/// A negative size, or more elements than inputs have.
pub(crate) fn count(tensor: &str, shape: &[i64]) -> Result<usize, ApiError> {
    let wrong = |what: String| ApiError::param(tensor, format!("the shape {shape:?} of input `{tensor}` {what}"));
    let sizes = shape.iter().map(|size| usize::try_from(*size));
    let sizes: Vec<usize> = sizes.collect::<Result<_, _>>().map_err(|_| wrong("has a negative size".to_owned()))?;
    let elements = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    match elements.filter(|elements| *elements <= ELEMENTS_MAX) {
        Some(elements) => Ok(elements),
        None => Err(wrong(format!("has more than {ELEMENTS_MAX} elements"))),
    }
}

impl Tensor {
    /// # Errors
    /// The values are not as many as the shape says, or not of the datatype.
    pub(crate) fn new(name: &str, datatype: Datatype, shape: &[i64], values: Vec<Value>) -> Result<Self, ApiError> {
        let (elements, given) = (count(name, shape)?, values.len());
        if elements != given {
            let message = format!("input `{name}` has {given} values, but its shape {shape:?} has {elements} elements");
            return Err(ApiError::param(name, message));
        }
        for (index, value) in values.iter().enumerate() {
            if let Err(what) = datatype.fits(value) {
                return Err(ApiError::param(name, format!("`{name}[{index}]` is {what}")));
            }
        }
        Ok(Self { name: name.to_owned(), datatype, values })
    }

    /// Of little-endian values.
    ///
    /// # Errors
    /// The bytes are not those of the shape's elements, or a text is not UTF-8.
    pub(crate) fn from_raw(name: &str, datatype: Datatype, shape: &[i64], raw: &[u8]) -> Result<Self, ApiError> {
        let elements = count(name, shape)?;
        let wrong = || {
            let message = format!(
                "the {} bytes of input `{name}` are not those of {elements} elements of its datatype; BYTES have their length in four bytes before each",
                raw.len()
            );
            ApiError::param(name, message)
        };
        let mut values = Vec::with_capacity(elements);
        let mut rest = raw;
        for index in 0..elements {
            let (element, after) = datatype.element(rest).ok_or_else(wrong)?;
            values.push(match element {
                Element::Number(number) => number,
                Element::Text(text) => Self::text(name, index, text)?,
            });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(wrong());
        }
        Self::new(name, datatype, shape, values)
    }

    /// An element of BYTES.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(crate) fn text(name: &str, index: usize, bytes: &[u8]) -> Result<Value, ApiError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(error) => {
                let message = format!("`{name}[{index}]` is not UTF-8: invalid at byte {}", error.valid_up_to());
                Err(ApiError::param(name, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn raw_values() {
        for (datatype, shape, raw, expected) in [
            ("BYTES", vec![2], b"\x02\0\0\0hi\0\0\0\0".to_vec(), json!(["hi", ""])),
            ("BOOL", vec![2, 1], vec![1, 0], json!([true, false])),
            ("INT8", vec![1], vec![0xff], json!([-1])),
            ("INT32", vec![1], (-5_i32).to_le_bytes().to_vec(), json!([-5])),
            ("UINT16", vec![1], vec![0xff, 0xff], json!([65535])),
            ("UINT64", vec![1], u64::MAX.to_le_bytes().to_vec(), json!([u64::MAX])),
            ("FP32", vec![1], 0.5_f32.to_le_bytes().to_vec(), json!([0.5])),
            ("FP64", vec![0], vec![], json!([])),
        ] {
            let datatype = Datatype::parse("x", datatype).expect("a datatype");
            let tensor = Tensor::from_raw("x", datatype, &shape, &raw).expect("good");
            assert_eq!(Value::Array(tensor.values), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let raw = |shape: &[i64], raw: &[u8]| Tensor::from_raw("x", Datatype::Bytes, shape, raw).expect_err("bad");
        for (error, words) in [
            (raw(&[1], b"\x09\0\0\0hi"), "the 6 bytes of input `x` are not those of 1 elements"),
            (raw(&[1], b"\x02\0\0\0hi!"), "7 bytes"),
            (raw(&[1], b"\x01\0\0\0\xff"), "`x[0]` is not UTF-8: invalid at byte 0"),
            (raw(&[-1], b""), "has a negative size"),
            (raw(&[1 << 40, 1 << 40], b""), "more than 1024 elements"),
            (
                Tensor::new("x", Datatype::Fp32, &[2], vec![json!(1)]).expect_err("bad"),
                "has 1 values, but its shape [2]",
            ),
            (Tensor::new("x", Datatype::Fp32, &[1], vec![Value::Null]).expect_err("bad"), "`x[0]` is no value: NaN"),
            (
                Tensor::from_raw("x", Datatype::Fp64, &[1], &f64::NAN.to_le_bytes()).expect_err("bad"),
                "`x[0]` is no value: NaN",
            ),
            (
                Tensor::new("x", Datatype::Int(Width::One), &[1], vec![json!(300)]).expect_err("bad"),
                "`x[0]` is 300, which its datatype does not hold: -128 to 127",
            ),
            (
                Tensor::new("x", Datatype::Uint(Width::Eight), &[1], vec![json!(-1)]).expect_err("bad"),
                "does not hold: 0 to 18446744073709551615",
            ),
            (Datatype::parse("x", "FP16").expect_err("bad"), "the datatype of input `x` is \"FP16\""),
        ] {
            assert!(error.body.message.contains(words), "{}", error.body.message);
            assert_eq!(error.body.param.as_deref(), Some("x"));
        }
    }
}
