//! Checkpoints: a base model on disk in any format, with configuration, weights, tokenizer and chat template.

mod error;
mod folder;
mod gguf_file;
mod gguf_places;
mod lookalike;
mod quantized;
mod shards;
mod stored;

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

pub use error::CheckpointError;

use crate::architecture::Architecture;
use crate::chat::ChatTemplate;
use crate::classifier::{self, Classifier};
use crate::digest;
use crate::embedding::EmbeddingSettings;
use crate::generation::GenerationDefaults;
use folder::Folder;
use gguf_file::GgufFile;
pub(crate) use stored::{Fit, Stored};

/// An opened base model. Weights stay in the file and are read on demand.
///
/// # Guarantees
/// Every tensor of its configuration is present, with the right shape and a supported type. No tensor is present that
/// the graph would leave out.
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

impl Checkpoint {
    /// Opens a Hugging Face folder (`config.json` with `model.safetensors` or its shards), a `.gguf` file, any part of a
    /// model in parts (`NAME-00001-of-00003.gguf`), or a folder with exactly one of these and no safetensors.
    ///
    /// # Errors
    /// Names the file, tensor or field that is missing, damaged or not supported.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let source = match gguf_file::find(path)? {
            Some(file) => Source::Gguf(Box::new(GgufFile::open(&file)?)),
            None => Source::Folder(Box::new(Folder::open(path)?)),
        };
        Ok(Self { source, digest: OnceLock::new() })
    }

    /// Description of the model.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        match &self.source {
            Source::Folder(folder) => folder.architecture(),
            Source::Gguf(file) => file.architecture(),
        }
    }

    /// Generation defaults of its authors.
    #[must_use]
    pub fn generation(&self) -> &GenerationDefaults {
        match &self.source {
            Source::Folder(folder) => folder.generation(),
            Source::Gguf(file) => file.generation(),
        }
    }

    /// Warnings for the load of the model: parts of its files that are not used as they are, each with the file.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match &self.source {
            Source::Folder(folder) => folder.notes(),
            Source::Gguf(file) => file.notes(),
        }
    }

    /// A tensor by its Hugging Face name and in Hugging Face row order, as f32; gains of norms as they are applied,
    /// whatever the file stores.
    ///
    /// The weight of a tied head is the embedding.
    ///
    /// # Errors
    /// Names a tensor that this model does not have.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let name = self.stored_name(name);
        match &self.source {
            Source::Folder(folder) => folder.tensor(&name),
            Source::Gguf(file) => file.tensor(&name),
        }
    }

    /// Bits of a quantised weight; `None` if it is a float or does not exist.
    #[must_use]
    pub fn native_bits(&self, name: &str) -> Option<u8> {
        match &self.source {
            Source::Folder(folder) => Some(folder.packed(&self.stored_name(name))?.bits()),
            Source::Gguf(file) => file.kind(&self.stored_name(name))?.quantised_bits(),
        }
    }

    /// Name of a tensor's type in the file, such as `BF16` or `Q4_K`.
    pub(crate) fn type_name(&self, name: &str) -> String {
        let name = self.stored_name(name);
        match &self.source {
            Source::Folder(folder) => folder.type_name(&name),
            Source::Gguf(file) => file.kind(&name).map(|kind| format!("{kind:?}")),
        }
        .unwrap_or_else(|| "unknown".to_owned())
    }

    /// A weight in the file's own quantisation; `None` unless that has scales for levels at even distances.
    pub(crate) fn stored(&self, name: &str) -> Option<Stored<'_>> {
        let name = self.stored_name(name);
        match &self.source {
            Source::Folder(folder) => folder.packed(&name)?.levels().map(Stored::Levels),
            Source::Gguf(file) => file.stored(&name),
        }
    }

    /// The tokenizer; `None` if the model has none.
    ///
    /// # Errors
    /// Names the unreadable file and the problem.
    pub fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => folder.tokenizer(),
            Source::Gguf(file) => file.tokenizer(),
        }
    }

    /// The chat template; `None` if the model has none.
    ///
    /// # Errors
    /// Names the line of a template that does not parse.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => folder.chat_template(),
            Source::Gguf(file) => file.chat_template(),
        }
    }

    /// How vectors are made of the states of a text's tokens: as the files of sentence-transformers say, or by the mean.
    ///
    /// # Errors
    /// Names the file and the setting that is not supported.
    pub fn embedding(&self) -> Result<EmbeddingSettings, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => folder.embedding(),
            Source::Gguf(_) => Ok(EmbeddingSettings::default()),
        }
    }

    /// The head that scores a pair of a query and a document.
    ///
    /// # Errors
    /// The checkpoint has none, one with several labels, or one that is not supported.
    pub fn reranker(&self) -> Result<Classifier, CheckpointError> {
        self.head(Classifier::reranker)
    }

    /// The head that gives texts labels.
    ///
    /// # Errors
    /// The checkpoint has none, one without names of labels, or one that is not supported.
    pub fn classifier(&self) -> Result<Classifier, CheckpointError> {
        self.head(Classifier::labeller)
    }

    fn head(
        &self,
        read: fn(&classifier::Source<'_>) -> Result<Classifier, CheckpointError>,
    ) -> Result<Classifier, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => folder.head(read),
            Source::Gguf(file) => {
                let problem = "a GGUF file has no head for labels; choose a folder with config.json and safetensors";
                Err(CheckpointError::Head { path: file.path().to_owned(), problem: problem.to_owned() })
            }
        }
    }

    /// `sha256:…` of the GGUF file, of all parts of a GGUF model in parts, or of the names and contents of the files of the
    /// folder that the model is read from. Computed on the first call.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| match &self.source {
            Source::Folder(folder) => digest::of_files(folder.files()),
            Source::Gguf(file) => file.digest(),
        })
    }

    fn stored_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let architecture = self.architecture();
        if architecture.head.tied && name == architecture.head.name.weight() {
            return architecture.embedding.weight().into();
        }
        name.into()
    }
}
