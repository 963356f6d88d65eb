//! An egress between a router's client and scripted endpoints, all over loopback. Nothing sleeps: tests wait on what streams say.

// Helpers of tests are tests: what they expect they unwrap.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod access;
mod answers;
mod drills;
mod endpoint;
mod harness;
mod oddities;
mod records;
