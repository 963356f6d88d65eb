//! Text to tokens before the engine, tokens to text after it.

mod prompt;
mod stream;
mod token_bytes;

pub use prompt::{Input, PromptError, Prompter};
pub use stream::{Piece, TextStream};
pub use token_bytes::TokenBytes;
