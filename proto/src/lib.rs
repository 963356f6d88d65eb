//! The `slm.v1` protocol in Rust.
//!
//! The `.proto` files beside this crate are the contract; this is what tonic and prost make of them, and the file
//! descriptors that gRPC reflection serves, with the headers and trailers that every server of it reads and writes.
//! A [`Completion`](v1::Completion) can take [deltas](v1::Completion::add), and decisions are [shown as JSON](json). Nothing else lives
//! here: no transport, no policy.

/// Package `slm.v1`: the messages, clients and servers.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::too_many_lines, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("slm.v1");
}

mod completion;
pub mod json;

/// Package `inference`: the Open Inference Protocol.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::too_many_lines, unreachable_pub)]
pub mod inference {
    tonic::include_proto!("inference");

    /// The encoded `FileDescriptorSet` of the package, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
}

/// The encoded `FileDescriptorSet` of `slm.v1`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Trailers of a refused request, for programs that have to tell refusals apart without reading messages.
pub mod trailers {
    /// The name of the error, such as `DigestMismatch`: one word, in conditions, Events, metrics and here.
    pub const REASON: &str = "slm-reason";
    /// The field that is wrong, as the proto names it.
    pub const ERROR_FIELD: &str = "slm-error-field";
    /// A word for what is wrong, where there is one.
    pub const ERROR_CODE: &str = "slm-error-code";
    /// Set when a model outside was asked, and as often as makes sense: nobody should ask it again for this request.
    pub const ASKED: &str = "slm-asked";
    /// Value of [`ERROR_CODE`]: the prompt, or prompt and `max_tokens` together, do not fit the context.
    pub const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";
    /// Value of [`ERROR_CODE`]: no expert of the route is for the request, and the route refuses such requests.
    pub const OUT_OF_SCOPE: &str = "out_of_scope";
}
