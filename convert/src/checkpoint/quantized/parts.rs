//! Tensors of one quantised weight.

use std::path::Path;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::shards::{Part, Shards};

/// Finds tensors by their names within a module, and remembers those that were found.
pub(super) struct Parts<'a> {
    pub(super) folder: &'a Path,
    pub(super) shards: &'a Shards,
    /// Name of the weight without `.weight`.
    pub(super) module: &'a str,
    /// Names of tensors that belong to the weight.
    pub(super) taken: Vec<String>,
}

impl Parts<'_> {
    fn name(&self, within: &str) -> String {
        format!("{}.{within}", self.module)
    }

    /// A tensor, without taking it.
    pub(super) fn peek(&self, within: &str) -> Option<Part> {
        self.shards.part(&self.name(within))
    }

    pub(super) fn has(&self, within: &str) -> bool {
        self.peek(within).is_some()
    }

    pub(super) fn find(&mut self, within: &str) -> Option<Part> {
        let part = self.peek(within)?;
        self.taken.push(self.name(within));
        Some(part)
    }

    pub(super) fn get(&mut self, within: &str) -> Result<Part, CheckpointError> {
        let missing = CheckpointError::MissingTensor { path: self.folder.to_owned(), tensor: self.name(within) };
        self.find(within).ok_or(missing)
    }

    /// Type of the tensor `weight`; empty if there is none.
    pub(super) fn weight_type(&self) -> String {
        self.peek("weight").map(|part| part.dtype().to_owned()).unwrap_or_default()
    }
}
