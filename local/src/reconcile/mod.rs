//! What a swarm should be and what it is, and what to do about the difference.
//!
//! [`plan`](plan::plan) is a pure function over two snapshots; nobody here starts a process, reads a file or waits. It
//! is called after every event and looks at everything anew, so a action that was lost is simply planned again. Whoever
//! carries out the actions reports what came of them in [`Observed`], and nothing else.
//!
//! Which adapters a worker loads and drops, and when it is asked again, is decided in [`slm_residency`], as it is for
//! the pods of a cluster. Here is decided which workers there are, and what the router may name.
//!
//! The order that it keeps, so that no request fails on the way:
//! - a worker takes over from another only when every adapter is on it;
//! - a name is taken from the router before its adapter or worker goes.

mod desired;
mod observed;
pub mod plan;
mod progress;
mod snapshot;

#[cfg(test)]
mod fixtures;

pub use desired::{Desired, DesiredAdapter, DesiredModel, Launch};
pub use observed::{Observed, Phase, Published, Worker, WorkerId};
pub use plan::Action;
pub use progress::{Progress, progress, settled};
