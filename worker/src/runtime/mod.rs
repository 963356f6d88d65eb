//! ONNX Runtime: the library, the decoder session, and the project's operators.
//!
//! The only module of this crate with `unsafe`. Its interface is safe: a step of [`DecoderSession`] takes `&mut self`,
//! because `run` must not be called concurrently, and the session owns every buffer that ONNX Runtime writes.

mod adapter_batch;
mod binding;
mod forward_pass;
mod library;
mod memory;
mod operators;
mod phases;
mod session;
mod tensor;

pub use forward_pass::{Chunk, ChunkError, LogitsRequest};
pub use library::{LibraryError, Runtime};
pub use session::{DecoderSession, SessionConfig, SessionError, TOKENS_MAX, page_bytes};
