//! A swarm on one machine: the manifests of a folder, kept as processes. What the operator is in a cluster.
//!
//! [`run()`] runs one to its end. In the order in which a change travels: `follow` notices it and reads the manifests, `resolve` finds every artifact
//! and its digest, the `supervisor` asks [`reconcile`] what to do and does it through `workers` and the
//! `router_process`, each a `child`; `handle_event` keeps what they answer, and `end` is the way out. Nothing of what they do is
//! decided here but in `reconcile`, which is pure.
//!
//! Of the same machine, without a swarm: [`doctor`] checks whether one would run, [`score`](mod@score) measures a model.
//!
//! No command line and no terminal: the caller passes settings and a [`Reporter`].

pub mod doctor;
pub mod reconcile;
pub mod score;

mod child;
mod downloads;
mod event;
mod fingerprint;
mod follow;
mod handle_event;
mod report;
mod resolve;
mod router_process;
mod run;
mod shutdown;
mod supervisor;
mod workers;

pub use self::{
    follow::WatchError,
    report::Reporter,
    router_process::RouterSettings,
    run::{Embedded, Options, RunError, run},
    supervisor::{Bound, Settings, Stop, UpError},
    workers::WorkerSettings,
};

/// `text` or `json`: how the logs of a process look, whatever its standard error is.
pub const LOG_FORMAT_VARIABLE: &str = "SLM_LOG_FORMAT";
