//! A swarm on one machine: the manifests of a folder, kept as processes. The counterpart of the operator in a cluster.
//!
//! [`run()`] is the entry. A change travels through the modules in this order:
//!
//! - `follow`: the watch of the folder; reads the manifests after every change;
//! - `resolve`: artifacts and their digests; `downloads` and `fingerprint` serve it;
//! - [`reconcile`]: the plan, a pure function of desired and observed state;
//! - `supervisor`: the loop that carries the plan out, through `workers`, `router_process` and `egress_process`, each a `child`;
//! - `handle_event`: the observed state, from the reports of children and workers;
//! - `shutdown`: the drain at the end.
//!
//! Without a swarm: [`doctor`] checks the machine, [`score`](mod@score) measures the perplexity of a model.
//!
//! No command line and no terminal: the caller passes settings and a [`Reporter`].

pub mod doctor;
pub mod reconcile;
pub mod score;

mod child;
mod downloads;
mod egress_process;
mod event;
mod fingerprint;
mod follow;
mod handle_event;
mod report;
mod resolve;
mod router_process;
mod run;
mod server_process;
mod shutdown;
mod supervisor;
mod workers;

pub use self::{
    egress_process::EgressSettings,
    follow::WatchError,
    report::Reporter,
    router_process::RouterSettings,
    run::{Embedded, Options, RunError, run},
    supervisor::{Bound, Settings, Stop, UpError},
    workers::WorkerSettings,
};

/// `text` or `json`: how the logs of a process look, whatever its standard error is.
pub const LOG_FORMAT_VARIABLE: &str = "SLM_LOG_FORMAT";
