//! The backend on the CPU: the project's operators over pages of keys and values, with adapters beside the graph.

mod adapter_batch;
mod encoder;
mod forward_pass;
mod memory;
mod operators;
mod phases;
mod session;
mod states;
pub(super) mod tensor;

pub use encoder::{EncoderConfig, EncoderSession, Text};
pub(super) use session::DecoderSession;
pub use session::{page_bytes, state_bytes};
