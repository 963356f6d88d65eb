//! Where snapshots of the swarm come from.

mod json_lines;
pub mod kubernetes;

pub use json_lines::{SourceError, json_lines};
