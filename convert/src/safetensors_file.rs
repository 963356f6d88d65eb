//! Safetensors reader.
//!
//! The header is parsed here rather than by a library, because errors must name the tensor. Format: eight bytes with
//! the length of the header, the header as JSON (`name -> {dtype, shape, data_offsets}`), then the data, which the
//! tensors cover without gap or overlap.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use slm_kernels::floats::{Float, Floats};

use crate::mapped::Mapped;

/// The format's own limit; a larger header means damage.
const HEADER_BYTES_MAX: u64 = 100_000_000;
const DIMENSIONS_MAX: usize = 8;

/// A safetensors file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file ends before its header.
    #[error("{}: header of {header} bytes in a file of {file} bytes; it is truncated, or no safetensors file: fetch it again", path.display())]
    HeaderLength {
        /// Path of the file.
        path: PathBuf,
        /// Length according to the first eight bytes.
        header: u64,
        /// Length of the file.
        file: u64,
    },
    /// The header is invalid.
    #[error("{}: header cannot be read: {problem}; this is no safetensors file, or a damaged one", path.display())]
    Header {
        /// Path of the file.
        path: PathBuf,
        /// Message of the parser.
        problem: String,
    },
    /// The file ends before the last tensor.
    #[error(
        "{}: tensor `{tensor}` ends at byte {end} of the data, which has {data} bytes; \
         the file is truncated: fetch it again",
        path.display()
    )]
    Truncated {
        /// Path of the file.
        path: PathBuf,
        /// First truncated tensor.
        tensor: String,
        /// End of the tensor, in bytes.
        end: u64,
        /// Bytes of data in the file.
        data: u64,
    },
    /// A tensor entry is inconsistent.
    #[error("{}: tensor `{tensor}`: {problem}; the file is damaged: fetch it again", path.display())]
    Layout {
        /// Path of the file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// Description of the inconsistency.
        problem: String,
    },
    /// An unsupported data type.
    #[error("{}: tensor `{tensor}` is of type {dtype}; supported: F32, F16, BF16", path.display())]
    Dtype {
        /// Path of the file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// Data type.
        dtype: String,
    },
}

/// An opened file whose header was checked against its length.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    bytes: Mapped,
    data_start: usize,
    entries: BTreeMap<String, Entry>,
}

/// Location of a tensor in its file.
#[derive(Debug, Clone)]
pub(crate) struct TensorLocation {
    float: Float,
    range: Range<usize>,
}

/// Tensors of the header. Other entries are skipped and take no memory.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry = map.next_value::<Entry>();
            let entry = entry.map_err(|error| A::Error::custom(format!("tensor `{name}`: {error}")))?;
            if entries.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate tensor `{name}`")));
            }
            entries.insert(name, entry);
        }
        Ok(Header(entries))
    }
}

/// Header entry of a tensor.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    pub(crate) shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Bounded number of dimensions; otherwise a header of zeros would take several times its length in memory.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct Shape;
    impl<'de> Visitor<'de> for Shape {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {DIMENSIONS_MAX} dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut dimensions: A) -> Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while let Some(dimension) = dimensions.next_element()? {
                if shape.len() == DIMENSIONS_MAX {
                    return Err(A::Error::invalid_length(DIMENSIONS_MAX + 1, &self));
                }
                shape.push(dimension);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(Shape)
}

impl Entry {
    /// Bytes of an element, for every type with whole bytes.
    fn element_bytes(&self) -> Option<u64> {
        match self.dtype.as_str() {
            "F64" | "I64" | "U64" => Some(8),
            "F32" | "I32" | "U32" => Some(4),
            "F16" | "BF16" | "I16" | "U16" => Some(2),
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Some(1),
            _ => None,
        }
    }

    fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element_bytes()?, |bytes, n| bytes.checked_mul(*n as u64))
    }
}

impl SafetensorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self, SafetensorsError> {
        let bytes = Mapped::open(path).map_err(|source| SafetensorsError::Io { path: path.to_owned(), source })?;
        let (data_start, entries) = read_header(path, &bytes)?;
        check_layout(path, &entries, (bytes.len() - data_start) as u64)?;
        Ok(Self { path: path.to_owned(), bytes, data_start, entries })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// A tensor's type in the format's spelling.
    pub(crate) fn dtype(&self, name: &str) -> Option<&str> {
        Some(self.entries.get(name)?.dtype.as_str())
    }

    /// A tensor's bytes, of whatever type.
    pub(crate) fn data(&self, name: &str) -> Option<&[u8]> {
        let (from, to) = self.entries.get(name)?.data_offsets;
        self.bytes.get(self.data_start + from as usize..self.data_start + to as usize)
    }

    /// Refuses a tensor whose type [`Self::values`] cannot convert to f32.
    pub(crate) fn check_dtype(&self, name: &str) -> Result<(), SafetensorsError> {
        self.place(name).map(|_| ())
    }

    /// Location of a tensor's floats; `None` if it does not exist.
    pub(crate) fn place(&self, name: &str) -> Result<Option<TensorLocation>, SafetensorsError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let float = match entry.dtype.as_str() {
            "F32" => Float::F32,
            "F16" => Float::F16,
            "BF16" => Float::Bf16,
            other => {
                let (path, tensor, dtype) = (self.path.clone(), name.to_owned(), other.to_owned());
                return Err(SafetensorsError::Dtype { path, tensor, dtype });
            }
        };
        let (from, to) = entry.data_offsets;
        Ok(Some(TensorLocation { float, range: self.data_start + from as usize..self.data_start + to as usize }))
    }

    /// The floats at a location.
    pub(crate) fn at(&self, place: &TensorLocation) -> Floats<'_> {
        Floats { float: place.float, bytes: &self.bytes[place.range.clone()] }
    }

    /// A tensor's values as f32; `None` if it does not exist.
    pub(crate) fn values(&self, name: &str) -> Result<Option<Vec<f32>>, SafetensorsError> {
        let mut values = Vec::new();
        let found = self.place(name)?.map(|place| self.at(&place).append_to(&mut values));
        Ok(found.map(|()| values))
    }

    /// Some of a tensor's values, in row-major order; `None` if it does not exist or has fewer.
    pub(crate) fn some_values(&self, name: &str, elements: Range<usize>) -> Result<Option<Vec<f32>>, SafetensorsError> {
        let Some(place) = self.place(name)? else { return Ok(None) };
        let Floats { float, bytes } = self.at(&place);
        let width = if float == Float::F32 { size_of::<f32>() } else { size_of::<f32>() / 2 };
        let part = elements.start.checked_mul(width).zip(elements.end.checked_mul(width));
        let Some(bytes) = part.and_then(|(begin, end)| bytes.get(begin..end)) else { return Ok(None) };
        let mut values = Vec::new();
        Floats { float, bytes }.append_to(&mut values);
        Ok(Some(values))
    }
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<(usize, BTreeMap<String, Entry>), SafetensorsError> {
    let path = path.to_owned();
    let file = bytes.len() as u64;
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(SafetensorsError::HeaderLength { path, header: 8, file });
    };
    let header = u64::from_le_bytes(*length);
    if header > rest.len() as u64 {
        return Err(SafetensorsError::HeaderLength { path, header, file });
    }
    if header > HEADER_BYTES_MAX {
        let problem = format!("{header} bytes long; the format allows {HEADER_BYTES_MAX}");
        return Err(SafetensorsError::Header { path, problem });
    }
    let parsed = serde_json::from_slice::<Header>(&rest[..header as usize]);
    let unreadable = |error: serde_json::Error| SafetensorsError::Header { path, problem: error.to_string() };
    let Header(entries) = parsed.map_err(unreadable)?;
    Ok((8 + header as usize, entries))
}

/// Checks that tensors are contiguous, have the length of their shape, and reach the end of the file.
fn check_layout(path: &Path, entries: &BTreeMap<String, Entry>, data: u64) -> Result<(), SafetensorsError> {
    let layout = |tensor: &str, problem: String| {
        Err(SafetensorsError::Layout { path: path.to_owned(), tensor: tensor.to_owned(), problem })
    };
    let mut by_offset: Vec<_> = entries.iter().collect();
    by_offset.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end_before = 0;
    let mut before = "the header";
    for (name, entry) in by_offset {
        let (from, to) = entry.data_offsets;
        if from > to {
            return layout(name, format!("its data ends at {to}, before it begins at {from}"));
        }
        if entry.element_bytes().is_none() {
            return Err(SafetensorsError::Dtype {
                path: path.to_owned(),
                tensor: name.clone(),
                dtype: entry.dtype.clone(),
            });
        }
        if entry.bytes() != Some(to - from) {
            let (shape, dtype) = (&entry.shape, &entry.dtype);
            return layout(name, format!("{} bytes of data cannot hold shape {shape:?} of type {dtype}", to - from));
        }
        if from != end_before {
            let how = if from < end_before { "overlaps" } else { "leaves a gap after" };
            return layout(name, format!("its data, from byte {from}, {how} that of {before}, to byte {end_before}"));
        }
        if to > data {
            return Err(SafetensorsError::Truncated { path: path.to_owned(), tensor: name.clone(), end: to, data });
        }
        (end_before, before) = (to, name);
    }
    if end_before != data {
        return layout(before, format!("it is the last and ends at byte {end_before} of {data}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Vec<String>, String> {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let read = read_header(Path::new("x.safetensors"), &bytes);
        read.map(|(_, entries)| entries.into_keys().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_header_says_what_it_says_once_and_within_bounds() {
        let entry = |shape: &str| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}"#);
        let header =
            format!(r#"{{"__metadata__":{{"a":[{}0]}},"t":{}}}"#, "0,".repeat(100_000), entry("[1,1,1,1,1,1,1,1]"));
        assert_eq!(read(&header), Ok(vec!["t".to_owned()]), "what is not read takes no memory");
        for (header, says) in [
            (
                format!(r#"{{"t":{}}}"#, entry("[1,1,1,1,1,1,1,1,1]")),
                "tensor `t`: invalid length 9, expected at most 8 dimensions",
            ),
            (format!(r#"{{"t":{0},"t":{0}}}"#, entry("[1]")), "duplicate tensor `t`"),
            (r#"{"t":{"dtype":"F32","shape":[1]}}"#.to_owned(), "tensor `t`: missing field `data_offsets`"),
            ("[]".to_owned(), "expected an object of tensors"),
        ] {
            let refused = read(&header).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
