//! Events on the standard output of a worker, a router or an egress, one JSON object a line. `slm up` reads them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// An event of `slm worker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum WorkerLine {
    /// Download of its artifact.
    Fetching {
        /// Done so far.
        done: u64,
        /// Total, when known.
        total: Option<u64>,
    },
    /// Conversion of its model, in layers.
    Converting {
        /// Done so far.
        done: usize,
        /// Total.
        total: usize,
    },
    /// ONNX Runtime loads the graph.
    Loading,
    /// The worker is ready for requests.
    Ready {
        /// Address of the gRPC endpoint.
        address: SocketAddr,
    },
    /// The process has failed and ends.
    Failed {
        /// The reason.
        message: String,
    },
}

/// An event of `slm router`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum RouterLine {
    /// Both ports are open.
    Ready {
        /// OpenAI-compatible HTTP.
        http: SocketAddr,
        /// gRPC.
        grpc: SocketAddr,
        /// Probes and metrics in plain text, if they have a port of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probes: Option<SocketAddr>,
    },
    /// The process has failed and ends.
    Failed {
        /// The reason.
        message: String,
    },
}

/// An event of `slm egress`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum EgressLine {
    /// Its ports are open.
    Ready {
        /// gRPC, for routers.
        grpc: SocketAddr,
        /// Probes and metrics, if they were asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probes: Option<SocketAddr>,
    },
    /// The process has failed and ends.
    Failed {
        /// The reason.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_stable() {
        let line = WorkerLine::Converting { done: 3, total: 30 };
        assert_eq!(serde_json::to_string(&line).expect("JSON"), r#"{"event":"converting","done":3,"total":30}"#);
        let ready = r#"{"event":"ready","http":"127.0.0.1:8000","grpc":"127.0.0.1:50051"}"#;
        let parsed: RouterLine = serde_json::from_str(ready).expect("a line");
        assert_eq!(serde_json::to_string(&parsed).expect("JSON"), ready);
    }
}
