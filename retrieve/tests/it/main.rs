//! The stores themselves: a real PostgreSQL with pgvector, and a stand-in of Qdrant.

// Helpers of tests are tests: what they expect they unwrap.
#![allow(clippy::expect_used, clippy::panic)]

mod postgres;
mod qdrant;
mod stores;
