//! What the commands of `slm` have in common.
//!
//! - [`exit`]: the end of a command: its failure, and the exit code;
//! - [`output`] and [`style`]: standard output, and colours by meaning;
//! - [`terminal`]: the progress of a swarm and of a conversion on standard error;
//! - [`store`]: the folders of the cache that arguments name.

pub mod exit;
pub mod output;
pub mod store;
pub mod style;
pub mod terminal;
