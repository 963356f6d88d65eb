//! The binary from outside: what it prints, where, and with which exit code.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod harness;

mod command_line;
mod doctor;
mod fetch;
