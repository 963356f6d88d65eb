//! The stores themselves: a real PostgreSQL with pgvector, and a stand-in of Qdrant.

// A test binary has no public interface: `pub` says what leaves a module.
#![allow(unreachable_pub)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod postgres;
mod qdrant;
mod stores;
