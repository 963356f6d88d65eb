//! The `slm.v1` protocol in Rust.
//!
//! The `.proto` files beside this crate are the contract; this is what tonic and prost make of them, and the file
//! descriptors that gRPC reflection serves. Nothing else lives here: no conversion, no transport, no policy.

/// Package `slm.v1`: the messages, clients and servers.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::too_many_lines, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("slm.v1");
}

/// The encoded `FileDescriptorSet` of the package, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
