//! Sources of the router's snapshots.

mod json_lines;
pub mod kubernetes;

pub use json_lines::{SourceError, json_lines};
