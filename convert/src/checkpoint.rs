//! A base model on disk, whatever its format: configuration, weights, tokenizer, chat template.

mod error;
mod folder;
mod gguf_file;
mod lookalike;
mod names;

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

pub use error::CheckpointError;

use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::digest;
use crate::generation::GenerationDefaults;
use crate::gguf::Kind;
use folder::Folder;
use gguf_file::GgufFile;

/// An opened base model. Weights stay in the file and are read when asked for.
///
/// # Guarantees
/// Every tensor that its configuration calls for is there, of the right shape and of a type that can be read; no
/// tensor is there that the graph would leave out.
#[derive(Debug)]
pub struct Checkpoint {
    source: Source,
    digest: OnceLock<String>,
}

#[derive(Debug)]
enum Source {
    Folder(Box<Folder>),
    Gguf(Box<GgufFile>),
}

/// One weight, dequantised.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// `[outputs, inputs]` for a linear layer, `[vocabulary, hidden]` for the embedding, `[hidden]` for a norm.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
}

/// One weight as it stands in the file.
pub(crate) struct Stored<'a> {
    /// What its blocks are.
    pub(crate) kind: Kind,
    /// As a [`Tensor`]'s.
    pub(crate) shape: Vec<usize>,
    /// Whole blocks, row after row.
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder (`config.json` with `model.safetensors` or its shards), a folder without safetensors that
    /// holds exactly one `.gguf`, or a `.gguf` file.
    ///
    /// # Errors
    /// Says which file, tensor or field is missing, damaged or not supported.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let source = match gguf_file::find(path)? {
            Some(file) => Source::Gguf(Box::new(GgufFile::open(&file)?)),
            None => Source::Folder(Box::new(Folder::open(path)?)),
        };
        Ok(Self { source, digest: OnceLock::new() })
    }

    /// The shape of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        match &self.source {
            Source::Folder(folder) => folder.config(),
            Source::Gguf(file) => file.config(),
        }
    }

    /// What its authors say about generating with it.
    #[must_use]
    pub fn generation(&self) -> &GenerationDefaults {
        match &self.source {
            Source::Folder(folder) => folder.generation(),
            Source::Gguf(file) => file.generation(),
        }
    }

    /// What in its files is not used as it stands there, each with the file: worth a warning when the model is loaded.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match &self.source {
            Source::Folder(folder) => folder.notes(),
            Source::Gguf(file) => file.notes(),
        }
    }

    /// A weight by its Hugging Face name, in the row order of Hugging Face, as f32.
    ///
    /// `lm_head.weight` of a model with a tied head is its embedding.
    ///
    /// # Errors
    /// Names a tensor that this model does not have.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let name = self.stored_name(name);
        match &self.source {
            Source::Folder(folder) => folder.tensor(name),
            Source::Gguf(file) => file.tensor(name),
        }
    }

    /// Bits of a weight that the file holds quantised; `None` for one of floats, or for none of that name.
    #[must_use]
    pub fn native_bits(&self, name: &str) -> Option<u8> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Gguf(file) => file.kind(self.stored_name(name))?.quantised_bits(),
        }
    }

    /// A weight as [`tensor`](Self::tensor), but in the file's own bytes; `None` unless it is in a GGUF file.
    pub(crate) fn stored(&self, name: &str) -> Option<Stored<'_>> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Gguf(file) => file.stored(self.stored_name(name)),
        }
    }

    /// The tokenizer; `None` where the model comes without one.
    ///
    /// # Errors
    /// Names the file and what of it cannot be read.
    pub fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => folder.tokenizer(),
            Source::Gguf(file) => file.tokenizer(),
        }
    }

    /// The chat template; `None` where the model comes without one.
    ///
    /// # Errors
    /// Names the line of a template that does not parse.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => folder.chat_template(),
            Source::Gguf(file) => file.chat_template(),
        }
    }

    /// `sha256:…` of the GGUF file, or of the names and contents of those files of the folder that the model is read
    /// from. Computed at the first call.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| match &self.source {
            Source::Folder(folder) => digest::of_files(folder.files()),
            Source::Gguf(file) => digest::of_bytes(file.bytes()),
        })
    }

    fn stored_name<'n>(&self, name: &'n str) -> &'n str {
        if name == names::HEAD && self.config().tie_word_embeddings { names::EMBEDDING } else { name }
    }
}
