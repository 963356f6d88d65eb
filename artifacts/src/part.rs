//! Parts of an artifact: downloaded files and their handling.

use std::path::PathBuf;

use crate::unpack::Packing;

/// A downloaded file and its handling.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Path of the downloaded file.
    pub(crate) from: PathBuf,
    /// Name for messages.
    pub(crate) name: String,
    /// Handling.
    pub(crate) becomes: Becomes,
}

/// Handling of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// A file at that relative path.
    File(PathBuf),
    /// An archive to unpack.
    Files(Packing),
}
