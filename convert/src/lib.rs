//! Conversion of model files to ONNX graphs, and of PEFT adapters to packed adapters.
//!
//! A checkpoint is read tensor by tensor, converted to a decoder graph with places for adapters, and written as a
//! [`bundle`] for workers. An adapter is checked against its base model and [packed](pack) for the operators that apply
//! it.
//!
//! Inputs are published files: Hugging Face folders, GGUF files and PEFT adapters. A file is checked as a whole before
//! anything is built from it, so a file that opens can be served: all tensors are present, their shapes fit the
//! configuration, and no unknown setting is ignored.
//!
//! No async, no network and no ONNX Runtime in this crate.

// In the order in which data meets them.
mod anonymous;
mod digest;
mod disguise;
mod fields;
mod listing;
mod mapped;
mod pattern;
mod safetensors_file;

pub mod architecture;
mod config_error;
mod families;
pub mod rope;

pub mod gguf;

pub mod chat;
mod chat_files;
pub mod checkpoint;
pub mod classifier;
pub mod dense;
pub mod embedding;
pub mod generation;
pub mod peft;
pub mod tokenizer;

// Outputs: graphs for ONNX Runtime, and packed adapters.
mod onnx;
mod weights;

mod block_bits;
mod quantize;

pub mod graph;
pub mod pack;

pub mod bundle;

pub mod estimate;

pub use architecture::Architecture;
pub use checkpoint::{Checkpoint, CheckpointError, Tensor};
pub use config_error::ConfigError;
pub use peft::{Adapter, AdapterError};
pub use safetensors_file::SafetensorsError;
