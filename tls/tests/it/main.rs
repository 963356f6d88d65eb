//! Two ends of one swarm, over loopback: who gets in, and that replacing certificates is felt by nobody.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod folder;
mod handshake;
mod harness;
mod public;
mod rotation;
