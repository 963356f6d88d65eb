//! Why a base model cannot be opened.

use std::path::PathBuf;

use crate::chat::ChatError;
use crate::config::ConfigError;
use crate::gguf::GgufError;
use crate::safetensors_file::SafetensorsError;
use crate::tokenizer::TokenizerError;

/// A base model that cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing here that can be read.
    #[error(
        "{}: no model here: expected config.json with model.safetensors (or model.safetensors.index.json and its \
         shards), or exactly one .gguf file; {found}",
        path.display()
    )]
    NoModel {
        /// Folder or file that was named.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A JSON file that is not JSON, or not an object.
    #[error("{}: not a readable JSON object: {problem}; fetch the file again", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// What the parser said, with line and column.
        problem: String,
    },
    /// An index of shards that does not hold together.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The configuration is incomplete or asks for what is not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A safetensors file is damaged.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A GGUF file is damaged or of an unknown kind.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A weight that the configuration calls for is not there.
    #[error("{}: tensor `{tensor}` is missing; the model is incomplete: fetch it again", path.display())]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// Name in the spelling of that format.
        tensor: String,
    },
    /// A weight that no graph of this family uses.
    #[error(
        "{}: tensor `{tensor}` has no place in a {family} model as config describes it; \
         the model has a part that is not supported, and leaving it out would change its answers",
        path.display()
    )]
    UnexpectedTensor {
        /// File or folder.
        path: PathBuf,
        /// Name in the spelling of that format.
        tensor: String,
        /// Family of the model.
        family: String,
    },
    /// A weight of another shape than the configuration gives it.
    #[error("{}: tensor `{tensor}` has shape {found:?}; the configuration makes it {expected:?}", path.display())]
    Shape {
        /// File or folder.
        path: PathBuf,
        /// Name in the spelling of that format.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// The tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template does not parse.
    #[error("{}: {source}", path.display())]
    Chat {
        /// File.
        path: PathBuf,
        /// Where it does not.
        source: ChatError,
    },
    /// Text cannot be read with what is there.
    #[error(
        "{}: tokenizer.json is not there, and {found} is not read: make it with transformers: python3 -c \"from \
         transformers import AutoTokenizer; AutoTokenizer.from_pretrained('.').save_pretrained('.')\" in the folder",
        path.display()
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
        /// The tokenizer in another form.
        found: &'static str,
    },
}
