//! The command line of a worker process, written and read by one type.
//!
//! [`WorkerLaunch`] is the command line of `slm worker`. The operator and `slm up` write it with [`WorkerLaunch::to_args`],
//! `slm worker` parses it with clap, so no side knows a flag that the other does not. [`provider`] refuses what no worker of
//! this release can run, before one is started. [`WorkerLine`], [`RouterLine`] and [`EgressLine`] are the events that the processes print.
//!
//! Plain data: no file is opened and no process started here.

mod lines;
mod provider;
mod store;
mod units;
mod worker;

pub use lines::{EgressLine, RouterLine, WorkerLine};
pub use provider::{ExecutionProvider, Unsupported, provider};
pub use store::{CacheArgs, HUB_ENDPOINT, PVC_ROOT, StoreArgs};
pub use units::{address, bytes, duration, size};
pub use worker::{Precision, Speculative, Task, WorkerLaunch};
