//! GGUF files, versions 2 and 3, or models in several of them: metadata and tensors, dequantised as in `gguf-py`.
//!
//! Layout, little-endian: magic, version, counts; metadata (`key, type, value`); tensor entries (`name, dimensions,
//! type, offset`); padding; data. Every length and offset is checked against the file's length before use.

mod blocks;
mod error;
mod grids;
mod reader;
mod split;
mod super_blocks;
mod tensor_type;
mod ternary;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::GgufError;
pub(crate) use split::PartName;
pub(crate) use tensor_type::TensorType;
pub(crate) use value::Element;
use value::Value;

use crate::mapped::Mapped;
use reader::Reader;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;
/// The largest models have dozens of metadata entries and thousands of tensors. An entry takes several times the memory
/// of its shortest encoding.
const METADATA_MAX: usize = 1 << 16;
const TENSORS_MAX: usize = 1 << 18;
/// Bound on values in all short lists together; a model has a few for each layer.
const LISTED_MAX: usize = 1 << 18;
/// Shortest tensor entry: empty name, one dimension, type, offset.
const TENSOR_ENTRY_BYTES_MIN: usize = 8 + 4 + 8 + 4 + 8;
/// Shortest metadata entry: empty key, type, one byte.
const METADATA_ENTRY_BYTES_MIN: usize = 8 + 4 + 1;

/// An opened GGUF file, or all parts of a model in several files.
#[derive(Debug)]
pub(crate) struct Gguf {
    /// At least one; the first has the metadata.
    files: Vec<File>,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    bytes: Mapped,
}

/// One file, read on its own.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    bytes: Mapped,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// Location, shape and type of a tensor.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    /// Row-major, slowest dimension first; the file has the reverse order.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: TensorType,
    /// Index of its file.
    file: usize,
    /// Byte range within the file.
    range: std::ops::Range<usize>,
}

impl Part {
    fn open(path: &Path) -> Result<Self, GgufError> {
        let bytes = Mapped::open(path).map_err(|source| GgufError::Io { path: path.to_owned(), source })?;
        let (metadata, tensors) = parse(path, &bytes)?;
        Ok(Self { path: path.to_owned(), bytes, metadata, tensors })
    }
}

impl Gguf {
    /// Opens a file, or all parts of the model that it is a part of.
    pub(crate) fn open(path: &Path) -> Result<Self, GgufError> {
        let mut gguf = Self { files: Vec::new(), metadata: BTreeMap::new(), tensors: BTreeMap::new() };
        for (file, Part { path, bytes, metadata, tensors }) in
            split::open_all(Part::open(path)?)?.into_iter().enumerate()
        {
            if file == 0 {
                gguf.metadata = metadata;
            }
            gguf.files.push(File { path, bytes });
            gguf.tensors.extend(tensors.into_iter().map(|(name, info)| (name, TensorInfo { file, ..info })));
        }
        Ok(gguf)
    }

    /// Path of the first file.
    pub(crate) fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// Bytes of each file, in the order of the parts.
    pub(crate) fn files(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.files.iter().map(|file| &*file.bytes)
    }

    /// Bytes of the file with the metadata.
    fn first(&self) -> &[u8] {
        self.files.first().map_or(&[], |file| &file.bytes)
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's values as f32.
    pub(crate) fn values(&self, name: &str) -> Option<Vec<f32>> {
        let (kind, bytes) = self.stored(name)?;
        Some(kind.dequantise(bytes))
    }

    /// A tensor's blocks in the file's own format.
    pub(crate) fn stored(&self, name: &str) -> Option<(TensorType, &[u8])> {
        let info = self.tensors.get(name)?;
        Some((info.kind, self.files.get(info.file)?.bytes.get(info.range.clone())?))
    }

    /// Scalar metadata and short lists but those of the tokenizer, as a map for [`Fields`](crate::fields::Fields).
    pub(crate) fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        let taken = self.metadata.iter().filter(|(key, value)| value.as_array().is_none() || is_listed(key));
        taken.filter_map(|(key, value)| Some((key.clone(), value.as_json(self.first())?))).collect()
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_text()
    }

    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.as_unsigned()
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.metadata.get(key)?.as_flag()
    }

    /// Elements of a metadata array.
    pub(crate) fn array(&self, key: &str) -> Option<impl Iterator<Item = Element<'_>>> {
        Some(self.metadata.get(key)?.as_array()?.elements(self.first()))
    }
}

/// Whether a list under this key is read at once.
fn is_listed(key: &str) -> bool {
    !key.starts_with("tokenizer.")
}

type Parsed = (BTreeMap<String, Value>, BTreeMap<String, TensorInfo>);

fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, GgufError> {
    let mut reader = Reader::new(path, bytes);
    let magic: [u8; 4] = reader.take("magic")?;
    if magic != MAGIC {
        return Err(GgufError::Magic { path: path.to_owned(), found: magic });
    }
    let version = reader.u32("version")?;
    if !VERSIONS.contains(&version) {
        let big_endian = VERSIONS.contains(&version.swap_bytes());
        return Err(GgufError::Version { path: path.to_owned(), version, big_endian });
    }
    let tensor_count = reader.u64("tensor count")?;
    let metadata_count = reader.count("metadata count", METADATA_ENTRY_BYTES_MIN)?;
    if metadata_count > METADATA_MAX {
        return Err(reader.bad("metadata count", &format!("{metadata_count} entries; the limit is {METADATA_MAX}")));
    }

    let (mut metadata, mut listed) = (BTreeMap::new(), 0);
    for _ in 0..metadata_count {
        let key = reader.text("a metadata key")?;
        let value = Value::read(&mut reader, key)?;
        if is_listed(key) {
            listed += value.listed();
        }
        if listed > LISTED_MAX {
            return Err(reader.bad(key, &format!("more than {LISTED_MAX} values in short lists")));
        }
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(reader.bad(key, "duplicate metadata key; the file is damaged"));
        }
    }
    let tensor_count = reader.fits("tensor count", tensor_count, TENSOR_ENTRY_BYTES_MIN)?;
    if tensor_count > TENSORS_MAX {
        return Err(reader.bad("tensor count", &format!("{tensor_count} tensors; the limit is {TENSORS_MAX}")));
    }
    let mut entries = Vec::new();
    for _ in 0..tensor_count {
        entries.push(Entry::read(&mut reader)?);
    }
    let alignment = match metadata.get("general.alignment").map(|value| (value, value.as_unsigned())) {
        None => ALIGNMENT_DEFAULT,
        Some((_, Some(alignment))) if alignment.is_power_of_two() => alignment,
        Some((value, _)) => {
            return Err(reader.bad("general.alignment", &format!("{value:?} is not a power of two")));
        }
    };
    let data_start = (reader.position() as u64).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    let tensors = place(path, bytes.len() as u64, data_start, alignment, entries)?;
    Ok((metadata, tensors))
}

/// A tensor entry of the file.
struct Entry {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    /// Offset from the start of the data.
    offset: u64,
    bytes: u64,
}

impl Entry {
    fn read(reader: &mut Reader<'_>) -> Result<Self, GgufError> {
        let name = reader.text("a tensor name")?.to_owned();
        let count = reader.u32(&name)?;
        if count == 0 || count > DIMENSIONS_MAX {
            return Err(reader.bad(&name, &format!("it has {count} dimensions; 1 to {DIMENSIONS_MAX} are possible")));
        }
        let mut shape = Vec::new();
        for _ in 0..count {
            let dimension = reader.u64(&name)?;
            shape.push(usize::try_from(dimension).map_err(|_| reader.bad(&name, "a dimension does not fit"))?);
        }
        let code = reader.u32(&name)?;
        let Some(kind) = TensorType::from_code(code) else {
            return Err(GgufError::TensorType { path: reader.path(), tensor: name, kind: tensor_type::describe(code) });
        };
        let offset = reader.u64(&name)?;
        let row = shape[0];
        if row % kind.block_len() != 0 {
            let problem = format!("rows of {row} values do not divide into {kind:?} blocks of {}", kind.block_len());
            return Err(reader.bad(&name, &problem));
        }
        let values = shape.iter().try_fold(1u64, |product, n| product.checked_mul(*n as u64));
        let bytes = values.and_then(|n| (n / kind.block_len() as u64).checked_mul(kind.block_bytes() as u64));
        let bytes = bytes.ok_or_else(|| reader.bad(&name, &format!("its shape {shape:?} is larger than any file")))?;
        shape.reverse();
        Ok(Self { name, shape, kind, offset, bytes })
    }
}

/// Checks every tensor against the file's length and against its neighbours.
fn place(
    path: &Path,
    file: u64,
    data_start: u64,
    alignment: u64,
    mut entries: Vec<Entry>,
) -> Result<BTreeMap<String, TensorInfo>, GgufError> {
    let bad = |tensor: &str, problem: String| GgufError::Malformed {
        path: path.to_owned(),
        field: tensor.to_owned(),
        problem,
    };
    entries.sort_by_key(|entry| entry.offset);
    let mut end_before = 0;
    let mut tensors = BTreeMap::new();
    for Entry { name, shape, kind, offset, bytes } in entries {
        if offset % alignment != 0 {
            return Err(bad(&name, format!("its offset {offset} is not a multiple of the alignment {alignment}")));
        }
        let end = data_start.checked_add(offset).and_then(|from| from.checked_add(bytes));
        let Some(end) = end.filter(|end| *end <= file) else {
            let needed = end.unwrap_or(u64::MAX);
            return Err(GgufError::Truncated { path: path.to_owned(), what: format!("tensor `{name}`"), needed, file });
        };
        if offset < end_before {
            return Err(bad(&name, "its data overlaps that of another tensor".to_owned()));
        }
        end_before = offset + bytes;
        let range = (end - bytes) as usize..end as usize;
        if tensors.insert(name.clone(), TensorInfo { shape, kind, file: 0, range }).is_some() {
            return Err(bad(&name, "duplicate tensor name; the file is damaged".to_owned()));
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zeroed file with the given counts of tensors and metadata.
    fn refusal(tensors: u64, metadata: u64, rest: &[u8]) -> String {
        let head = [&MAGIC[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &metadata.to_le_bytes(), rest].concat();
        parse(Path::new("x.gguf"), &head).unwrap_err().to_string()
    }

    #[test]
    fn what_takes_memory_is_counted_before_it_is_read() {
        assert!(refusal(0, 70_000, &vec![0; 70_000 * 13]).contains("70000 entries; the limit is 65536"));
        assert!(refusal(300_000, 0, &vec![0; 300_000 * 32]).contains("300000 tensors; the limit is 262144"));
        assert!(refusal(0, 70_000, &[0; 100]).contains("more than the remaining"));
        assert!(refusal(u64::MAX, 0, &[0; 100]).contains("more than the remaining"));
        let list = |index: u64| {
            let key = format!("k{index:04}");
            // A list of 1,024 bytes.
            let head =
                [(key.len() as u64).to_le_bytes().to_vec(), key.into_bytes(), vec![9, 0, 0, 0, 0, 0, 0, 0]].concat();
            [head, 1024u64.to_le_bytes().to_vec(), vec![7; 1024]].concat()
        };
        let lists: Vec<u8> = (0..257).flat_map(list).collect();
        assert!(refusal(0, 257, &lists).contains("`k0256`: more than 262144 values in short lists"));
    }
}
