//! Model files in, ONNX graphs and packed adapters out.
//!
//! A checkpoint is read tensor by tensor, turned into a decoder graph whose linear layers leave room for adapters, and
//! written as a [`bundle`] that a worker opens. An adapter is checked against the model it is for and [packed](pack)
//! for the operator that applies it.
//!
//! The input side reads what others publish: Hugging Face folders, GGUF files and PEFT adapters. Every file is judged
//! whole before anything is built from it, so a file that opens is a file that can be served: all tensors are there,
//! their shapes fit the configuration, and no setting was ignored because nobody knew it.
//!
//! This crate has no async, no network and no ONNX Runtime. Files in, values and files out.

// In the order in which data meets them.
mod anonymous;
mod digest;
mod disguise;
mod fields;
mod listing;
mod mapped;
mod safetensors_file;

pub mod config;
mod config_error;
mod families;
pub mod rope;

pub mod gguf;

pub mod chat;
mod chat_files;
pub mod checkpoint;
pub mod generation;
pub mod peft;
pub mod tokenizer;

// The output side: graphs for ONNX Runtime, and adapters laid out for the operator that applies them.
mod onnx;
mod weights;

mod quantize;

pub mod graph;
pub mod pack;

pub mod bundle;

pub use checkpoint::{Checkpoint, CheckpointError, Tensor};
pub use config::{Family, ModelConfig};
pub use peft::{Adapter, AdapterError};
pub use safetensors_file::SafetensorsError;
