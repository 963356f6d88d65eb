//! ONNX Runtime: the library, and backends that run decoder graphs on its execution providers.
//!
//! The only module of this crate with `unsafe`. Its interface is safe: a step of a [`Backend`] takes `&mut self`, because `run`
//! must not be called concurrently, and a backend owns every buffer that ONNX Runtime writes.
//!
//! `cpu` has the project's operators over pages; `rows` runs graphs of standard operators over rows of device memory, for every
//! other provider.

mod assignment;
mod backend;
mod binding;
mod cpu;
mod cuda;
mod device;
mod library;
mod openvino;
mod provider;
mod rows;
mod self_check;
mod sessions;
mod top;

pub use assignment::Assignment;
pub use backend::{Backend, Chunk, ChunkError, Geometry, LogitsRequest, SessionConfig, SessionError, TOKENS_MAX};
pub use cpu::{EncoderConfig, EncoderSession, Text, page_bytes, state_bytes};
pub use device::DeviceError;
pub use library::{LibraryError, Runtime};
pub use openvino::OpenVinoDevice;
pub use provider::{AdapterLoader, AdapterRoom, Encoding, Opened, Provider, ProviderError};
pub use rows::{BankError, BankImage, BankedAdapter};
pub use self_check::{SelfCheck, SelfCheckError};
#[cfg(test)]
pub(crate) use top::TopRows;
pub use top::{TOP, Top};
