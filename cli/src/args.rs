//! Arguments that several commands share.

use std::net::SocketAddr;

use slm_convert::{bundle::PrecisionChoice, graph};
use slm_launch::{ExecutionProvider, Task};
use slm_router::Origin;
use slm_worker::runtime::{OpenVinoDevice, Provider};

pub use slm_launch::{CacheArgs, Precision, address, duration};

/// The converter's form of a precision.
pub fn precision(precision: Precision) -> PrecisionChoice {
    match precision {
        Precision::Auto => PrecisionChoice::Auto,
        Precision::F32 => PrecisionChoice::Exactly(graph::Precision::F32),
        Precision::F16 => PrecisionChoice::Exactly(graph::Precision::F16),
        Precision::Int4 => PrecisionChoice::Exactly(graph::Precision::Int4),
        Precision::Int8 => PrecisionChoice::Exactly(graph::Precision::Int8),
    }
}

/// The worker's form of a task.
pub fn task(task: Task) -> slm_worker::model::Task {
    match task {
        Task::Generate => slm_worker::model::Task::Generate,
        Task::Embed => slm_worker::model::Task::Embed,
        Task::Rerank => slm_worker::model::Task::Rerank,
        Task::Classify => slm_worker::model::Task::Classify,
    }
}

/// The worker's form of an execution provider.
pub fn provider(provider: ExecutionProvider) -> Provider {
    match provider {
        ExecutionProvider::Cpu => Provider::Cpu,
        // The first GPU of those that the node, or CUDA_VISIBLE_DEVICES, gives to this process.
        ExecutionProvider::Cuda => Provider::Cuda(0),
        ExecutionProvider::OpenVino => Provider::OpenVino { device: OpenVinoDevice::Cpu },
    }
}

/// Addresses of a swarm's endpoints.
#[derive(Clone, Debug, clap::Args)]
pub struct ListenArgs {
    /// Address of the OpenAI-compatible HTTP endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", env = "SLM_HTTP", default_value = "127.0.0.1:8000", value_parser = address)]
    pub http: SocketAddr,
    /// Address of the gRPC endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", env = "SLM_GRPC", default_value = "127.0.0.1:50051", value_parser = address)]
    pub grpc: SocketAddr,
    /// Web pages that may call the HTTP endpoint from a browser, by their origin: `https://chat.example.com`,
    /// `http://localhost:*` (any port) or * (any page); several with commas. `slm up` on a loopback address lets those of
    /// localhost without it.
    #[arg(long, value_name = "ORIGIN", env = "SLM_HTTP_ALLOW_ORIGIN", value_delimiter = ',')]
    pub http_allow_origin: Vec<Origin>,
}
