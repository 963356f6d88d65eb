//! Reconciliation: desired state, observed state, and a plan for the difference.
//!
//! [`plan`](plan::plan) is a pure function of two snapshots; no process is started here, no file read, nothing awaited. It is
//! called after every event and remembers nothing, so a lost action is simply planned again. The result of an action counts
//! only when it shows in [`Observed`].
//!
//! Loads and unloads of adapters, with their retries, are decided in [`slm_residency`], as for the pods of a cluster. This
//! module decides which workers run and which names the router has.
//!
//! Two rules keep requests from failing meanwhile:
//! - a worker replaces another only when every adapter is loaded on it;
//! - a name is removed from the router before its adapter or worker goes.

mod desired;
mod observed;
pub mod plan;
mod progress;
mod snapshot;

#[cfg(test)]
mod fixtures;

pub use desired::{Desired, DesiredAdapter, DesiredExternal, DesiredModel, Launch, UnusableAdapter, UnusableModel};
pub use observed::{Observed, Phase, Published, Worker, WorkerId};
pub use plan::Action;
pub use progress::{Progress, progress, settled};
