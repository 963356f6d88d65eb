//! ONNX Runtime: finding the library, one decoder session, and the operator that applies adapters inside it.
//!
//! This module and [`crate::kernels`] are the only places with `unsafe`. What leaves them is safe to use: a
//! [`DecoderSession`] takes `&mut self` for a step, because `run` may not be called twice at once, and owns every
//! buffer that ONNX Runtime writes to.

mod binding;
mod library;
mod lora_add;
mod session;

pub use library::{LibraryError, Runtime};
pub use session::{CHUNK_MAX, DecodeRow, DecoderSession, SessionConfig, SessionError};
