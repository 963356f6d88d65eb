//! A swarm on one machine: the manifests of a folder, kept as processes. What the operator is in a cluster.
//!
//! In the order in which a change travels: `follow` notices it and reads the manifests, `resolve` finds every artifact
//! and its digest, the `supervisor` asks [`reconcile`] what to do and does it through `workers` and the
//! `router_process`, each a `child`; `take_in` keeps what they answer, and `end` is the way out. Nothing of what they do is
//! decided here but in `reconcile`, which is pure.
//!
//! No command line and no terminal: whoever runs it passes settings and a [`Reporter`].

pub mod reconcile;

mod child;
mod downloads;
mod end;
mod event;
mod fingerprint;
mod follow;
mod report;
mod resolve;
mod router_process;
mod supervisor;
mod take_in;
mod workers;

pub use self::{
    downloads::Downloads,
    follow::{Watch, WatchError, follow, read},
    report::Reporter,
    resolve::{Resolver, SharedResolver},
    router_process::RouterSettings,
    supervisor::{Bound, Settings, Stop, Supervisor, UpError},
    workers::WorkerSettings,
};

/// `text` or `json`: how the logs of a process look, whatever its standard error is.
pub const LOG_FORMAT_VARIABLE: &str = "SLM_LOG_FORMAT";
