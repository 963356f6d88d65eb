//! Shared parts of the end-to-end tests.

pub mod archives;
pub mod clients;
pub mod cluster;
pub mod embeddings;
pub mod parity;
pub mod real;
pub mod sequence;
pub mod smollm2;
pub mod swarm;
pub mod tiny;
pub mod variants;
