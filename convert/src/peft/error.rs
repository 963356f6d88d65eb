//! Errors of adapters.

use std::path::PathBuf;

use crate::config_error::ConfigError;
use crate::safetensors_file::SafetensorsError;

/// An adapter that cannot be applied exactly, with the obstacle.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A folder without one of the two required files.
    #[error("{}: {missing} is missing: {found}", path.display())]
    NotAnAdapter {
        /// Path of the folder.
        path: PathBuf,
        /// Name of the missing file.
        missing: &'static str,
        /// Description of the folder, and the remedy.
        found: String,
    },
    /// adapter_config.json is not a JSON object.
    #[error("{file}: not a readable JSON object: {problem}")]
    Json {
        /// Name of the file.
        file: String,
        /// Message of the parser, with line and column.
        problem: String,
    },
    /// A field is missing or has the wrong type.
    #[error(transparent)]
    Field(#[from] ConfigError),
    /// A setting that is not supported.
    #[error("{file}: `{field}` = {found} is not supported: {why}")]
    Unsupported {
        /// Name of the file.
        file: String,
        /// Field name.
        field: String,
        /// Value of the field.
        found: String,
        /// Reason why it is not supported.
        why: String,
    },
    /// A regular expression that does not compile or takes too long to match.
    #[error("{file}: `{field}`: the expression {pattern:?} cannot be used: {problem}")]
    Pattern {
        /// Name of the file.
        file: String,
        /// Field name.
        field: String,
        /// The regular expression.
        pattern: String,
        /// Message of the regular-expression engine.
        problem: String,
    },
    /// The adapter targets modules that cannot be adapted, or none.
    #[error("{file}: `target_modules`: {problem}")]
    Target {
        /// Name of the file.
        file: String,
        /// The module and the reason.
        problem: String,
    },
    /// The weights are damaged.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// Weights of a targeted module are missing.
    #[error("{}: tensor `{tensor}` is missing, though adapter_config.json targets its module", path.display())]
    MissingTensor {
        /// Path of the weight file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
    },
    /// A tensor that would be ignored.
    #[error("{}: tensor `{tensor}` cannot be applied: {problem}", path.display())]
    UnexpectedTensor {
        /// Path of the weight file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// Reason why it cannot be applied.
        problem: String,
    },
    /// A tensor with another rank, or for another base.
    #[error(
        "{}: tensor `{tensor}` has shape {found:?}; with rank {rank} of adapter_config.json on this base model it must \
         be {expected:?}: the adapter was made for another base, or its two files do not belong together",
        path.display()
    )]
    Shape {
        /// Path of the weight file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// Rank according to the configuration.
        rank: usize,
        /// Shape in the file.
        found: Vec<usize>,
        /// Expected shape.
        expected: Vec<usize>,
    },
    /// A weight that is not finite.
    #[error("{}: tensor `{tensor}` holds {value} at index {index}: the training diverged, or the file is damaged", path.display())]
    NotFinite {
        /// Path of the weight file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// NaN or an infinity.
        value: f32,
        /// Its first index, in row-major order.
        index: usize,
    },
}
