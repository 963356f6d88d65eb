//! Fetches from real servers on this machine: one of ours that misbehaves on demand, and the registry `distribution`.

// A test binary has no public interface: `pub` says what leaves a module.
#![allow(unreachable_pub)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod child;
mod common;
mod hub_server;
mod registry;
mod s3_server;
mod server;

mod auth;
mod bucket;
mod hub;
mod oci;
mod resume;
mod room;
mod sharing;
mod tls;
mod web;
