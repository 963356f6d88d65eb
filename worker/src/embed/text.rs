//! Texts, and pairs of texts, to tokens, with the tokens that the tokenizer puts around them.

use slm_convert::{
    architecture::Encoder,
    bundle::{Bundle, BundleError},
};
use tokenizers::{
    Encoding, PostProcessor, Tokenizer,
    utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings},
};

/// Tokens of a text or of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Types of the tokens; empty where all are of the first.
    pub(crate) types: Vec<u8>,
}

impl Tokens {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Reads the texts of a model.
#[derive(Debug)]
pub(crate) struct TextReader {
    tokenizer: Option<Tokenizer>,
    model: String,
    prompt: String,
    vocab_size: usize,
    tokens_max: usize,
    /// Token types that the model tells apart.
    types: usize,
}

/// A text that is refused; its index is known to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    /// Nothing to read.
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
    /// A query without a document is more than the model takes.
    #[error("has {tokens} tokens; `{model}` takes {most}, query and document together: shorten it")]
    LongQuery {
        /// Tokens of the query, and those around a pair.
        tokens: usize,
        /// Bound of the model.
        most: usize,
        /// Name of the model.
        model: String,
    },
    /// A pair is more than the model takes.
    #[error(
        "has {tokens} tokens together with the query; `{model}` takes {most}: shorten it, split it, or ask for the begin alone \
         with `truncate`"
    )]
    LongPair {
        /// Tokens of the pair.
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
    /// Reads for the model `name`, texts of at most `tokens_max` tokens, each with `prompt` before it.
    pub(crate) fn new(bundle: &Bundle, prompt: &str, name: &str, tokens_max: usize) -> Result<Self, BundleError> {
        Ok(Self {
            tokenizer: bundle.tokenizer()?,
            model: name.to_owned(),
            prompt: prompt.to_owned(),
            vocab_size: bundle.info.architecture.vocab_size,
            tokens_max,
            types: bundle.info.architecture.encoder.as_ref().map_or(1, Encoder::types),
        })
    }

    pub(crate) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Tokens of `text`, of its begin if it is too long and to be cut.
    pub(crate) fn tokens(&self, text: &str, truncate: bool) -> Result<Tokens, TextError> {
        let (tokenizer, mut encoding) = self.encoding(text)?;
        self.cut(&mut encoding, added(tokenizer, false), truncate)?;
        let encoding = tokenizer.post_process(encoding, None, true).map_err(failed)?;
        self.checked(encoding.get_ids().to_vec())
    }

    /// Tokens of `text`, however many, with those around a text or without.
    pub(crate) fn counted(&self, text: &str, around: bool) -> Result<Vec<u32>, TextError> {
        let (tokenizer, mut encoding) = self.encoding(text)?;
        if around {
            encoding = tokenizer.post_process(encoding, None, true).map_err(failed)?;
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// A query, to be paired with documents.
    pub(crate) fn query(&self, text: &str) -> Result<Query<'_>, TextError> {
        let (tokenizer, encoding) = self.encoding(text)?;
        let around = added(tokenizer, true);
        let tokens = encoding.len() + around;
        if tokens >= self.tokens_max {
            return Err(TextError::LongQuery { tokens, most: self.tokens_max, model: self.model.clone() });
        }
        Ok(Query { reader: self, tokenizer, encoding, around })
    }

    /// The text alone, with the prompt before it.
    fn encoding(&self, text: &str) -> Result<(&Tokenizer, Encoding), TextError> {
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| TextError::NoTokenizer(self.model.clone()))?;
        let prompted;
        let text = if self.prompt.is_empty() {
            text
        } else {
            prompted = format!("{}{text}", self.prompt);
            &prompted
        };
        Ok((tokenizer, tokenizer.encode_fast(text, false).map_err(failed)?))
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
    pub(crate) fn given(&self, mut ids: Vec<u32>, truncate: bool) -> Result<Tokens, TextError> {
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

    fn checked(&self, ids: Vec<u32>) -> Result<Tokens, TextError> {
        if ids.is_empty() {
            return Err(TextError::Empty);
        }
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(&id) => Err(TextError::TokenId { id, vocab_size: self.vocab_size, model: self.model.clone() }),
            None => Ok(Tokens { ids, types: Vec::new() }),
        }
    }
}

/// A query, which is the first text of each pair.
pub(crate) struct Query<'a> {
    reader: &'a TextReader,
    tokenizer: &'a Tokenizer,
    encoding: Encoding,
    /// Tokens that the tokenizer puts around a pair.
    around: usize,
}

impl Query<'_> {
    /// Tokens of the pair with `document`, of which the longer text is cut if they are too many and to be cut.
    pub(crate) fn with(&self, document: &str, truncate: bool) -> Result<Tokens, TextError> {
        let Self { reader, tokenizer, .. } = self;
        let (_, mut second) = reader.encoding(document)?;
        // What some post-processors go by.
        second.set_type_ids(vec![1; second.len()]);
        let (mut first, mut second) = (self.encoding.clone(), second);
        let tokens = first.len() + second.len() + self.around;
        let most = reader.tokens_max;
        if tokens > most {
            if !truncate {
                return Err(TextError::LongPair { tokens, most, model: reader.model.clone() });
            }
            let cut = TruncationParams {
                max_length: most.saturating_sub(self.around),
                strategy: TruncationStrategy::LongestFirst,
                direction: TruncationDirection::Right,
                stride: 0,
            };
            let (one, other) = truncate_encodings(first, Some(second), &cut).map_err(failed)?;
            (first, second) = (one, other.unwrap_or_default());
        }
        let pair = tokenizer.post_process(first, Some(second), true).map_err(failed)?;
        let mut tokens = reader.checked(pair.get_ids().to_vec())?;
        if reader.types > 1 {
            tokens.types = pair.get_type_ids().iter().map(|kind| u8::from(*kind > 0)).collect();
        }
        Ok(tokens)
    }
}

fn failed(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer(error.to_string())
}

/// Tokens that the tokenizer puts around a text, or a pair.
fn added(tokenizer: &Tokenizer, pair: bool) -> usize {
    tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
}
