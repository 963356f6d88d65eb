//! The inference server: one base model, many experts, one ONNX Runtime session.
//!
//! A request's life, in the order of the modules: it gets a [permit](permits), is [admitted](admit) within the model's
//! bounds, becomes [tokens](text), waits for the [engine]'s next step, which runs it together with whatever else runs on the
//! [session](runtime) and adds its own [adapter](adapters)'s share, has its next token [sampled](sample), and goes back
//! as [text] over the service.
//!
//! Not here: which worker a request goes to, and which adapters ought to be loaded. A worker does what it is told and
//! tells what it has.

pub mod permits;

pub mod admit;
pub mod text;
mod text_pool;

pub mod engine;
pub mod runtime;

pub mod adapters;

pub mod sample;

mod service;
mod state;
mod telling;

pub mod model;
pub mod score;
mod thread_priority;

mod fetch;
mod serve;

pub use fetch::mounted as mounted_credentials;
pub use serve::{WorkerConfig, WorkerError, WorkerEvent, run};
