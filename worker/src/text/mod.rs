//! Tokenising before the engine, detokenising after it.

mod decode;
mod infill;
mod plain;
mod prompt;
mod specials;
mod stream;
mod token_bytes;
mod user_text;

pub(crate) use prompt::decode;
pub use prompt::{Input, PromptError, Prompter, Reading};
pub use specials::Specials;
pub use stream::{Piece, TextStream};
pub use token_bytes::TokenBytes;
