//! The inference server.
mod kernels;
pub mod adapters;
pub mod admit;
pub mod engine;
pub mod model;
pub mod runtime;
pub mod sample;
pub mod text;
