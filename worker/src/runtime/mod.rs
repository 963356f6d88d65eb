//! ONNX Runtime: finding the library, one decoder session, and the operators of ours inside it.
//!
//! This module is the only place with `unsafe`. What leaves them is safe to use: a
//! [`DecoderSession`] takes `&mut self` for a step, because `run` may not be called twice at once, and owns every
//! buffer that ONNX Runtime writes to.

mod binding;
mod library;
mod memory;
mod operators;
mod phases;
mod session;
mod sharing;
mod step;
mod tensor;

pub use library::{LibraryError, Runtime};
pub use session::{DecoderSession, SessionConfig, SessionError, TOKENS_MAX, page_bytes};
pub use step::{Chunk, ChunkError, Wanted};
