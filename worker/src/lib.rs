//! The inference server (worker): one base model and many LoRA adapters in one ONNX Runtime session, with continuous
//! batching.
//!
//! A request passes through the modules in order: it takes a [permit](permits), is converted to [tokens](text) and
//! checked by [admission](admit), waits for the [engine], runs on the [session](runtime) in a batch with other
//! requests, each with its own [adapter](adapters), has its next token [sampled](sample) from those that a
//! [constraint](constrain) allows, and returns as [text], with calls of [tools] taken out, over
//! gRPC. An encoder, for vectors, scores and labels, has the embedder (`embed`) in the engine's place.
//!
//! Not in this crate: the choice of a worker for a request, and of the adapters to load. A worker executes loads and
//! reports its state.

pub mod permits;

pub mod admit;
pub mod constrain;
pub mod text;
pub mod tools;

mod embed;
pub mod engine;
pub mod runtime;

pub mod adapters;

pub mod sample;

mod probe;
mod service;
mod serving_metrics;
mod state;

pub mod model;
pub mod score;

mod fetch;
mod serve;

pub use fetch::mounted as mounted_credentials;
pub use serve::{WorkerConfig, WorkerError, WorkerEvent, run};
