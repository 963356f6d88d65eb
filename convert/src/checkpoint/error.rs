//! Errors of opening a base model.

use std::path::PathBuf;

use crate::chat::ChatError;
use crate::config_error::ConfigError;
use crate::gguf::GgufError;
use crate::safetensors_file::SafetensorsError;
use crate::tokenizer::TokenizerError;

/// A base model that cannot be opened, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// No readable model.
    #[error(
        "{}: no model here: expected config.json with model.safetensors (or model.safetensors.index.json and its \
         shards), or exactly one .gguf file; {found}",
        path.display()
    )]
    NoModel {
        /// Path of the source.
        path: PathBuf,
        /// Description of what is there instead.
        found: String,
    },
    /// Something that is not the file that its name says.
    #[error("{}: {problem}", path.display())]
    NotAFile {
        /// Path of the file.
        path: PathBuf,
        /// Description of what it is, and the remedy.
        problem: String,
    },
    /// A file that is not JSON, or not an object.
    #[error("{}: not a readable JSON object: {problem}; fetch the file again", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// Message of the parser, with line and column.
        problem: String,
    },
    /// An inconsistent index of shards.
    #[error("{}: {problem}", path.display())]
    Index {
        /// Path of the index.
        path: PathBuf,
        /// Description of the inconsistency.
        problem: String,
    },
    /// The files of sentence-transformers are inconsistent, or ask for something that is not there.
    #[error("{}: {problem}", path.display())]
    Embedding {
        /// Path of the file.
        path: PathBuf,
        /// Description of the problem, and the remedy.
        problem: String,
    },
    /// The model has no head for the task.
    #[error("{}: {problem}", path.display())]
    Head {
        /// Path of the file.
        path: PathBuf,
        /// Description of the problem, and the remedy.
        problem: String,
    },
    /// The configuration is incomplete or not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A safetensors file is damaged.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A GGUF file is damaged or not supported.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A weight of the configuration is missing.
    #[error("{}: tensor `{tensor}` is missing; the model is incomplete: fetch it again", path.display())]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// Name in the format's own spelling.
        tensor: String,
    },
    /// A weight that the model's family does not use.
    #[error(
        "{}: tensor `{tensor}` has no place in a {family} model as config describes it; \
         the model has a part that is not supported, and leaving it out would change its answers",
        path.display()
    )]
    UnexpectedTensor {
        /// File or folder.
        path: PathBuf,
        /// Name in the format's own spelling.
        tensor: String,
        /// Family of the model.
        family: String,
    },
    /// A weight whose shape contradicts the configuration.
    #[error("{}: tensor `{tensor}` has shape {found:?}; the configuration makes it {expected:?}", path.display())]
    Shape {
        /// File or folder.
        path: PathBuf,
        /// Name in the format's own spelling.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape according to the configuration.
        expected: Vec<usize>,
    },
    /// A part of a quantised weight that does not fit the others.
    #[error("{}: tensor `{tensor}` {problem}", path.display())]
    Part {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Description of what is wrong with it, and of what was expected.
        problem: String,
    },
    /// The tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template does not parse.
    #[error("{}: {source}", path.display())]
    Chat {
        /// File.
        path: PathBuf,
        /// Error of the template.
        source: ChatError,
    },
    /// The folder has no usable tokenizer.
    #[error(
        "{}: tokenizer.json is missing, and {found} is not supported: make it with transformers: python3 -c \"from \
         transformers import AutoTokenizer; AutoTokenizer.from_pretrained('.').save_pretrained('.')\" in the folder",
        path.display()
    )]
    NoTokenizer {
        /// Path of the folder.
        path: PathBuf,
        /// Name of a tokenizer file in another format.
        found: &'static str,
    },
}
