//! Every path of every kernel that this CPU can run.
#![allow(unsafe_code)] // Kernels that write to shared rows are unsafe to call; each test says why it may.

mod attention;
mod common;
mod experts;
mod linear;
mod sources;
mod states;
