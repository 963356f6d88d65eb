//! The safetensors files of a folder as one set of tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::CheckpointError;
use crate::safetensors_file::{SafetensorsError, SafetensorsFile};

/// Opened safetensors files by name.
#[derive(Debug)]
pub(super) struct Shards(BTreeMap<String, Arc<SafetensorsFile>>);

/// A tensor of any type. Cheap to clone; keeps its file open.
#[derive(Debug, Clone)]
pub(super) struct Part {
    file: Arc<SafetensorsFile>,
    name: String,
}

impl Shards {
    pub(super) fn open(folder: &Path, names: BTreeSet<String>) -> Result<Self, SafetensorsError> {
        let open = |name: String| Ok((name.clone(), Arc::new(SafetensorsFile::open(&folder.join(&name))?)));
        Ok(Self(names.into_iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Files with their contents.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, shard)| (name.as_str(), shard.bytes()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SafetensorsFile> {
        self.0.values().map(Arc::as_ref)
    }

    /// The file that holds a tensor.
    pub(super) fn holder(&self, tensor: &str) -> Option<&SafetensorsFile> {
        self.iter().find(|shard| shard.entry(tensor).is_some())
    }

    pub(super) fn part(&self, tensor: &str) -> Option<Part> {
        let file = self.0.values().find(|shard| shard.entry(tensor).is_some())?;
        Some(Part { file: Arc::clone(file), name: tensor.to_owned() })
    }
}

impl Part {
    /// Type in the format's spelling.
    pub(super) fn dtype(&self) -> &str {
        self.file.dtype(&self.name).unwrap_or_default()
    }

    pub(super) fn shape(&self) -> &[usize] {
        self.file.entry(&self.name).map_or(&[], |entry| &entry.shape)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.file.data(&self.name).unwrap_or_default()
    }

    /// An error about this tensor; `problem` continues "tensor X ...".
    pub(super) fn bad(&self, problem: impl Into<String>) -> CheckpointError {
        let (path, tensor) = (self.file.path().to_owned(), self.name.clone());
        CheckpointError::Part { path, tensor, problem: problem.into() }
    }

    /// Refuses other types than these.
    pub(super) fn typed(self, types: &[&str]) -> Result<Self, CheckpointError> {
        if types.contains(&self.dtype()) {
            return Ok(self);
        }
        Err(self.bad(format!("is of type {}; expected {}", self.dtype(), types.join(", "))))
    }

    /// Refuses other shapes than these, which `why` explains.
    pub(super) fn shaped(self, shapes: &[&[usize]], why: &str) -> Result<Self, CheckpointError> {
        if shapes.contains(&self.shape()) {
            return Ok(self);
        }
        let expected: Vec<_> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
        Err(self.bad(format!("has shape {:?}; expected {} for {why}", self.shape(), expected.join(" or "))))
    }
}
