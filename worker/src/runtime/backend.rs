//! What the engine drives: a model's forward pass on some device.

use std::path::PathBuf;

use super::{device::DeviceError, provider::ProviderError, top::Top};

/// A model's forward pass, with the memory of keys and values. Whoever drives it assigns pages to sequences.
pub trait Backend: Send {
    /// Its sizes and abilities.
    fn geometry(&self) -> Geometry;

    /// Runs a forward pass over `chunks`. Returns the number of requested rows of logits, which are there until the next step, in
    /// the order of the chunks. After an error the contents of the chunks' new positions are unspecified.
    ///
    /// # Errors
    /// The step is beyond the geometry, its pages are at fault, or ONNX Runtime failed.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<usize, SessionError>;

    /// The largest logits of row `row`, where [`Chunk::candidates`] asked for them and the backend selects them itself.
    fn top(&self, _row: usize) -> Option<Top<'_>> {
        None
    }

    /// Row `row` of the logits.
    ///
    /// # Errors
    /// The device failed.
    fn row(&mut self, row: usize) -> Result<&[f32], SessionError>;

    /// All rows of the logits, one after another.
    ///
    /// # Errors
    /// The device failed.
    fn rows(&mut self) -> Result<&[f32], SessionError>;
}

/// Sizes and abilities of a [`Backend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bound on the positions of a sequence.
    pub context_length: usize,
    /// Positions of a page of keys and values.
    pub page: usize,
    /// Pages.
    pub pages: usize,
    /// Bound on the rows of logits of a step.
    pub logits: usize,
    /// Length of a row of logits.
    pub vocab_size: usize,
    /// Slots for states of sequences; zero for a model without any.
    pub states: usize,
    /// Whether sequences may share pages that none of them writes.
    pub shares_pages: bool,
    /// Whether a step takes several tokens of an answer at about the price of one.
    pub drafts: bool,
}

impl Geometry {
    /// Pages needed by `sequences` of `positions` each.
    #[must_use]
    pub fn pages_for(&self, sequences: usize, positions: usize) -> usize {
        sequences * positions.div_ceil(self.page)
    }

    /// Bytes of the logits of a step.
    #[must_use]
    pub fn logits_bytes(&self) -> usize {
        self.logits.max(1) * self.vocab_size * size_of::<f32>()
    }

    /// Checks the totals of a step; gives its tokens and rows of logits.
    pub(super) fn check(&self, chunks: &[Chunk<'_>]) -> Result<(usize, usize), SessionError> {
        let tokens = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        if tokens == 0 || tokens > TOKENS_MAX {
            return Err(SessionError::Tokens(tokens));
        }
        let asked = chunks.iter().map(|chunk| chunk.logits.count(chunk.tokens.len())).sum();
        if asked > self.logits {
            return Err(SessionError::Logits { asked, most: self.logits });
        }
        Ok((tokens, asked))
    }
}

/// New tokens of one sequence (vLLM: scheduled tokens).
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// The new tokens; at least one.
    pub tokens: &'a [u32],
    /// Number of preceding tokens, whose keys and values are in the pages.
    pub past: usize,
    /// Page table: pages of positions `0..PAGE`, `PAGE..2 * PAGE` and so on. Chunks may share pages that none of them
    /// writes.
    pub pages: &'a [u32],
    /// Slot of the sequence's state, if the model has states. Without preceding tokens it begins anew; else the slot holds what
    /// the preceding tokens left there.
    pub state: Option<usize>,
    /// Adapter slot in the table.
    pub adapter: Option<usize>,
    /// Requested logits.
    pub logits: LogitsRequest,
    /// Whether the largest logits suffice, which a device selects itself, and the temperature at which they are weighed.
    pub candidates: Option<f32>,
}

/// Tokens of a chunk that need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsRequest {
    /// None: prefill continues after the chunk.
    Nothing,
    /// The last token.
    Last,
    /// Every token.
    All,
}

impl LogitsRequest {
    /// Number of rows for a chunk of `tokens`.
    pub fn count(self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Last => 1,
            Self::All => tokens,
        }
    }
}

/// A chunk that cannot be part of the pass, because of a fault in the page tables or in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk {chunk} of the step {wrong}")]
pub struct ChunkError {
    /// Index of the chunk.
    pub chunk: usize,
    wrong: &'static str,
}

impl ChunkError {
    pub(super) fn new(chunk: usize, wrong: &'static str) -> Self {
        Self { chunk, wrong }
    }
}

/// Configuration of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// Bound on the positions of a sequence.
    pub context_length: usize,
    /// Pages of the KV cache, of [`Provider::page`](super::Provider::page) positions each.
    pub pages: usize,
    /// Bound on sequences at a time: slots for their states, if the model has states.
    pub sequences: usize,
    /// Bound on the rows of logits of a step.
    pub logits: usize,
    /// Threads of a step, including the caller's.
    pub threads: usize,
}

/// The session could not be opened, or a step failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Error of ONNX Runtime.
    #[error("ONNX Runtime: {0}")]
    Runtime(#[from] ort::Error),
    /// The converted model cannot be opened.
    #[error("{}: {source}; if the folder is damaged, delete it and it will be made again", .bundle.display())]
    Open {
        /// Path of the bundle.
        bundle: PathBuf,
        /// Error of ONNX Runtime.
        source: ort::Error,
    },
    /// The device failed, or has too little memory.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The library of the execution provider is not there, or has no such device.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The context exceeds the trained one.
    #[error("context length {asked} is more than the {most} positions that this model has")]
    ContextLength {
        /// Requested positions.
        asked: usize,
        /// Available positions.
        most: usize,
    },
    /// The step requests too many rows of logits.
    #[error(
        "{asked} rows of logits are wanted of a step; the session was opened for {most}: want fewer, or open it for more"
    )]
    Logits {
        /// Requested rows.
        asked: usize,
        /// Available rows.
        most: usize,
    },
    /// The step has too many tokens, or none.
    #[error("a step of {0} tokens; it may have 1 to {TOKENS_MAX}")]
    Tokens(usize),
    /// A pass of whole texts is too large, or empty.
    #[error("a pass of {texts} texts with {tokens} tokens is beyond the session's bounds")]
    Texts {
        /// Tokens of all texts.
        tokens: usize,
        /// Number of texts.
        texts: usize,
    },
    /// A chunk is invalid.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// Bound on the tokens of a step over all chunks; bounds the memory of activations.
pub const TOKENS_MAX: usize = 512;
