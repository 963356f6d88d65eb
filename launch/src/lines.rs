//! What a worker and a router say on standard output, one JSON object a line, and `slm up` reads.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Of `slm worker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum WorkerLine {
    /// Bytes of its artifact fetched so far.
    Fetching {
        /// So many.
        done: u64,
        /// Of so many, when known.
        total: Option<u64>,
    },
    /// Layers converted so far.
    Converting {
        /// So many.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// ONNX Runtime loads the graph.
    Loading,
    /// It takes requests.
    Ready {
        /// Here, over gRPC.
        address: SocketAddr,
    },
    /// It cannot go on.
    Failed {
        /// Because.
        message: String,
    },
}

/// Of `slm router`.
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
    /// It cannot go on.
    Failed {
        /// Because.
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
