//! The parts of an artifact: files as they arrive, and what becomes of them.

use std::path::PathBuf;

use crate::unpack::Packing;

/// A file that has arrived, and what becomes of it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it lies.
    pub(crate) from: PathBuf,
    /// For messages.
    pub(crate) name: String,
    /// What it becomes.
    pub(crate) becomes: Becomes,
}

/// What a part becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// A file of that path.
    File(PathBuf),
    /// The files in it.
    Files(Packing),
}
