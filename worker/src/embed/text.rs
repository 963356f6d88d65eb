//! Texts to tokens, with the tokens that the tokenizer puts around them.

use slm_convert::{
    bundle::{Bundle, BundleError},
    embedding::EmbeddingSettings,
};
use tokenizers::{Encoding, PostProcessor, Tokenizer, utils::truncation::TruncationDirection};

/// Reads the texts of a model.
#[derive(Debug)]
pub(crate) struct TextReader {
    tokenizer: Option<Tokenizer>,
    model: String,
    prompt: String,
    vocab_size: usize,
    tokens_max: usize,
}

/// A text that is refused; its index is known to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    /// Nothing to embed.
    #[error("is empty; send a text, or leave it out")]
    Empty,
    /// More than the model takes.
    #[error(
        "has {tokens} tokens; `{model}` takes {most}: shorten it, split it, or ask for the begin alone with `truncate`"
    )]
    TooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Bound of the model.
        most: usize,
        /// Name of the model.
        model: String,
    },
    /// No token of the vocabulary.
    #[error("has the token id {id}; the vocabulary of `{model}` ends at {}", .vocab_size - 1)]
    TokenId {
        /// The id.
        id: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
        /// Name of the model.
        model: String,
    },
    /// The model has no tokenizer.
    #[error("is a text, and `{0}` has no tokenizer; send token ids")]
    NoTokenizer(String),
    /// The tokenizer fails on the text.
    #[error("cannot be tokenised: {0}")]
    Tokenizer(String),
}

impl TextReader {
    /// Reads for the model `name`, texts of at most `tokens_max` tokens.
    pub(crate) fn new(
        bundle: &Bundle,
        settings: &EmbeddingSettings,
        name: &str,
        tokens_max: usize,
    ) -> Result<Self, BundleError> {
        Ok(Self {
            tokenizer: bundle.tokenizer()?,
            model: name.to_owned(),
            prompt: settings.prompt.clone(),
            vocab_size: bundle.info.architecture.vocab_size,
            tokens_max,
        })
    }

    pub(crate) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Tokens of `text`, of its begin if it is too long and to be cut.
    pub(crate) fn tokens(&self, text: &str, truncate: bool) -> Result<Vec<u32>, TextError> {
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| TextError::NoTokenizer(self.model.clone()))?;
        let failed = |error: tokenizers::Error| TextError::Tokenizer(error.to_string());
        let prompted;
        let text = if self.prompt.is_empty() {
            text
        } else {
            prompted = format!("{}{text}", self.prompt);
            &prompted
        };
        let mut encoding = tokenizer.encode_fast(text, false).map_err(failed)?;
        let around = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        self.cut(&mut encoding, around, truncate)?;
        let encoding = tokenizer.post_process(encoding, None, true).map_err(failed)?;
        self.checked(encoding.get_ids().to_vec())
    }

    fn cut(&self, encoding: &mut Encoding, around: usize, truncate: bool) -> Result<(), TextError> {
        let tokens = encoding.len() + around;
        if tokens <= self.tokens_max {
            return Ok(());
        }
        if !truncate {
            return Err(self.too_long(tokens));
        }
        encoding.truncate(self.tokens_max.saturating_sub(around), 0, TruncationDirection::Right);
        Ok(())
    }

    /// Tokens that a caller has, as they are.
    pub(crate) fn given(&self, mut ids: Vec<u32>, truncate: bool) -> Result<Vec<u32>, TextError> {
        if ids.len() > self.tokens_max {
            if !truncate {
                return Err(self.too_long(ids.len()));
            }
            ids.truncate(self.tokens_max);
        }
        self.checked(ids)
    }

    fn too_long(&self, tokens: usize) -> TextError {
        TextError::TooLong { tokens, most: self.tokens_max, model: self.model.clone() }
    }

    fn checked(&self, ids: Vec<u32>) -> Result<Vec<u32>, TextError> {
        if ids.is_empty() {
            return Err(TextError::Empty);
        }
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(&id) => Err(TextError::TokenId { id, vocab_size: self.vocab_size, model: self.model.clone() }),
            None => Ok(ids),
        }
    }
}
