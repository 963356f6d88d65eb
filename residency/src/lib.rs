//! Which adapters a worker holds, which it should hold, and what to ask of it: the same for a worker process of
//! `slm up` and for a worker pod of the operator.
//!
//! A worker says over its state stream what it holds; nobody remembers what it was once asked for longer than the
//! outcome is unknown. Whoever keeps workers calls [`steps()`] after every event and carries out what it says:
//!
//! - [`version`]: what an adapter has to be, and when what a worker holds is that;
//! - [`holdings`]: what one worker holds and was asked for, and what each of its answers changes in that;
//! - [`refusal`]: what a refused load means, and when it is tried again;
//! - [`step`], [`steps`](mod@steps): from both to what to ask for next: load, replace, drop, or leave;
//! - [`pause`]: how long between attempts;
//! - [`state_stream`]: the state stream of a worker, across its breaks; routers follow it, too;
//! - [`link`]: the connection: the state stream, loads and drops.
//!
//! All but the last two is pure and takes the time as an argument. Not here: how workers come and go, how adapters are
//! wanted (manifests or objects), and whom callers are sent to.

pub mod holdings;
pub mod link;
pub mod pause;
pub mod refusal;
pub mod state_stream;
pub mod step;
pub mod steps;
pub mod version;

#[cfg(test)]
mod simulation;

pub use holdings::{Holdings, VersionState};
pub use link::Link;
pub use refusal::Refused;
pub use step::Step;
pub use steps::steps;
pub use version::{Resident, Version, Wanted};
