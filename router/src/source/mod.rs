//! Sources of the router's snapshots. On one machine `slm router` reads them from its standard input.

pub mod kubernetes;
