//! The binary from outside: what it prints, where, and with which exit code.

mod harness;

mod command_line;
mod refusals;
mod swarm;
