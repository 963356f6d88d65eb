//! Model files in, ONNX graphs and packed adapters out.
//!
//! The input side reads what others publish: Hugging Face folders, GGUF files and PEFT adapters. Every file is judged
//! whole before anything is built from it, so a file that opens is a file that can be served: all tensors are there,
//! their shapes fit the configuration, and no setting was ignored because nobody knew it.
//!
//! This crate has no async, no network and no ONNX Runtime. It reads files and returns values.

// In the order in which data meets them.
mod digest;
mod fields;
mod mapped;
mod safetensors_file;

pub mod config;
mod families;
pub mod rope;

pub mod gguf;

pub mod chat;
pub mod checkpoint;
pub mod generation;
pub mod peft;
pub mod tokenizer;

pub use checkpoint::{Checkpoint, CheckpointError, Tensor};
pub use config::{Family, ModelConfig};
pub use peft::{Adapter, AdapterError};
pub use safetensors_file::SafetensorsError;
