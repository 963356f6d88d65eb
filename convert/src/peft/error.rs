//! Why an adapter cannot be applied.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::safetensors_file::SafetensorsError;

/// An adapter that cannot be applied exactly, by the name of what stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without one of the two files.
    #[error("{}: {missing} is not there: {found}", path.display())]
    NotAnAdapter {
        /// The folder.
        path: PathBuf,
        /// The file that is missing.
        missing: &'static str,
        /// What is there instead, and what to do.
        found: String,
    },
    /// adapter_config.json is not a JSON object.
    #[error("{file}: not a readable JSON object: {problem}")]
    Json {
        /// The file.
        file: String,
        /// What the parser said, with line and column.
        problem: String,
    },
    /// A field is missing or not of its type.
    #[error(transparent)]
    Field(#[from] ConfigError),
    /// A setting that cannot be applied exactly.
    #[error("{file}: `{field}` = {found} is not supported: {why}")]
    Unsupported {
        /// adapter_config.json.
        file: String,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What it would take.
        why: String,
    },
    /// A pattern that does not compile or that takes too long to match.
    #[error("{file}: `{field}`: the expression {pattern:?} cannot be used: {problem}")]
    Pattern {
        /// adapter_config.json.
        file: String,
        /// The field.
        field: String,
        /// The expression.
        pattern: String,
        /// What the expression engine said.
        problem: String,
    },
    /// The adapter targets what cannot be adapted, or nothing.
    #[error("{file}: `target_modules`: {problem}")]
    Target {
        /// adapter_config.json.
        file: String,
        /// Which module, and why not.
        problem: String,
    },
    /// The weights are damaged.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A targeted module without its weights.
    #[error("{}: tensor `{tensor}` is missing, though adapter_config.json targets its module", path.display())]
    MissingTensor {
        /// adapter_model.safetensors.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight that would be left out.
    #[error("{}: tensor `{tensor}` cannot be applied: {problem}", path.display())]
    UnexpectedTensor {
        /// adapter_model.safetensors.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why not.
        problem: String,
    },
    /// A weight of another rank or for another base.
    #[error(
        "{}: tensor `{tensor}` has shape {found:?}; with rank {rank} of adapter_config.json on this base model it must \
         be {expected:?}: the adapter was made for another base, or its two files do not belong together",
        path.display()
    )]
    Shape {
        /// adapter_model.safetensors.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its rank by the configuration.
        rank: usize,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A weight that is not a number.
    #[error("{}: tensor `{tensor}` holds {value} at index {index}: the training diverged, or the file is damaged", path.display())]
    NotFinite {
        /// adapter_model.safetensors.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// NaN or an infinity.
        value: f32,
        /// First place of it, in row-major order.
        index: usize,
    },
}
