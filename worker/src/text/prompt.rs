//! What the caller sent, as token ids.

use slm_convert::{
    bundle::{Bundle, BundleError},
    chat::{ChatError, ChatMessage, ChatTemplate},
};
use tokenizers::Tokenizer;

/// Turns prompts into tokens of one model.
#[derive(Debug)]
pub struct Prompter {
    tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    vocab_size: usize,
}

/// The prompt cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model is bare weights.
    #[error("model `{model}` has no tokenizer; send token_ids")]
    NoTokenizer {
        /// Its name.
        model: String,
    },
    /// Only raw prompts are possible.
    #[error("model `{model}` has no chat template; send `prompt` instead of messages")]
    NoChatTemplate {
        /// Its name.
        model: String,
    },
    /// The template refused the conversation.
    #[error("messages: {0}")]
    ChatTemplate(#[from] ChatError),
    /// The tokenizer failed.
    #[error("prompt: the tokenizer failed: {0}")]
    Tokenizer(String),
    /// An id is not of this vocabulary.
    #[error("token_ids[{index}] is {id}; the vocabulary of `{model}` ends at {last}", last = vocab_size - 1)]
    TokenId {
        /// Position in the request.
        index: usize,
        /// What stands there.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
        /// Name of the model.
        model: String,
    },
}

/// What a request may carry.
#[derive(Debug)]
pub enum Input {
    /// A conversation for the chat template.
    Messages(Vec<ChatMessage>),
    /// Raw text.
    Prompt(String),
    /// Ids of the vocabulary.
    TokenIds(Vec<u32>),
}

impl Prompter {
    /// That of `bundle`.
    pub fn new(bundle: &Bundle) -> Result<Self, BundleError> {
        Ok(Self {
            tokenizer: bundle.tokenizer()?,
            template: bundle.info.chat_template.clone(),
            vocab_size: bundle.info.config.vocab_size,
        })
    }

    /// The tokenizer, when the model has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The tokens of `input`; `model` is the name used in errors.
    pub fn tokens(&self, input: Input, model: &str) -> Result<Vec<u32>, PromptError> {
        match input {
            Input::Messages(messages) => {
                let no_template = || PromptError::NoChatTemplate { model: model.into() };
                let text = self.template.as_ref().ok_or_else(no_template)?.render(&messages, true)?;
                // The template has put the special tokens where they belong.
                self.encode(&text, false, model)
            }
            Input::Prompt(text) => self.encode(&text, true, model),
            Input::TokenIds(ids) => match ids.iter().position(|&id| id as usize >= self.vocab_size) {
                Some(index) => Err(PromptError::TokenId {
                    index,
                    id: ids[index],
                    vocab_size: self.vocab_size,
                    model: model.into(),
                }),
                None => Ok(ids),
            },
        }
    }

    fn encode(&self, text: &str, add_special_tokens: bool, model: &str) -> Result<Vec<u32>, PromptError> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| PromptError::NoTokenizer { model: model.into() })?;
        let encoding = tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(|error| PromptError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}
