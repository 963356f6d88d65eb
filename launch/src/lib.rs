//! How a worker process is started.
//!
//! [`WorkerLaunch`] is the command line of `slm worker`. The operator and `slm up` fill it in and write it down with
//! [`WorkerLaunch::to_args`]; `slm worker` reads it with clap. So a flag that one side knows the other knows too, and
//! what no worker can run is found out before one is started ([`provider`]). What the processes say on standard output
//! while they run is [`WorkerLine`] and [`RouterLine`].
//!
//! Plain data: no file is opened and no process started here.

mod lines;
mod provider;
mod store;
mod units;
mod worker;

pub use lines::{RouterLine, WorkerLine};
pub use provider::{ExecutionProvider, Unsupported, provider};
pub use store::{CacheArgs, PVC_ROOT, StoreArgs};
pub use units::{address, bytes, duration, size};
pub use worker::{Precision, Speculative, WorkerLaunch};
