//! Residency of adapters: the adapters that a worker holds, those that it should hold, and the requests that close the
//! gap. The same for a worker process of `slm up` and for a worker pod of the operator.
//!
//! The worker is the source of truth: its state stream says which adapters are loaded. A request is remembered only until
//! its outcome shows there. A control loop calls [`next_actions()`] after every event and carries the actions out:
//!
//! - [`version`]: a desired version of an adapter, and its match with a resident one;
//! - [`holdings`]: the observed state of one worker, with the requests under way;
//! - [`refusal`]: a refused load, and the time of its retry;
//! - [`action`], [`next_actions`](mod@next_actions): load, replace, cancel or unload, from desired and observed state;
//! - [`placement`]: the workers of a base that have an adapter;
//! - [`pause`]: backoff between attempts;
//! - [`state_stream`]: the client of a worker's state stream, across breaks; routers use it, too;
//! - [`worker_client`]: the client of one worker: state stream, loads and unloads.
//!
//! All but the last two are pure and take the time as an argument. Not here: the life of workers, the source of the
//! desired state (manifests or objects), and routing.

pub mod action;
pub mod holdings;
pub mod next_actions;
pub mod pause;
pub mod placement;
pub mod refusal;
pub mod state_stream;
pub mod version;
pub mod worker_client;

#[cfg(test)]
mod simulation;

pub use action::AdapterAction;
pub use holdings::{Holdings, VersionState};
pub use next_actions::next_actions;
pub use refusal::Refused;
pub use version::{DesiredAdapters, Resident, Version};
pub use worker_client::WorkerClient;
