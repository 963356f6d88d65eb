//! Fetches from real servers on this machine: one of ours that misbehaves on demand, and the registry `distribution`.

// A test binary has no public interface: `pub` says what leaves a module.
#![allow(unreachable_pub)]

mod child;
mod common;
mod registry;
mod server;

mod auth;
mod oci;
mod resume;
mod room;
mod sharing;
mod tls;
mod web;
