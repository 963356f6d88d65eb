//! Low-priority threads for expensive work, shared fairly by tenants: long prompts in a worker, large bodies and expensive
//! rules in a router. No number of such requests takes a core from decoding, and a tenant with many of them delays only
//! itself.
//!
//! - [`Priority`]: classes of threads, by their nice value;
//! - [`FairPool`]: a bounded number of threads of one class, whose work is chosen round-robin among tenants.

mod fair;
mod priority;

pub use fair::{FairPool, PoolError};
pub use priority::{Priority, with_priority};
