//! The stores themselves: a real PostgreSQL with pgvector, and a stand-in of Qdrant.

mod postgres;
mod qdrant;
mod stores;
