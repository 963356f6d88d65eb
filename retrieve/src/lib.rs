//! Retrieval: passages of a vector store, for prompts.
//!
//! It makes no vectors, knows no router and no manifest's folder: whoever calls has the vector of a text. Pure are `chunk` (a text to
//! pieces), `message` (passages to a message) and the plan of `index`; what asks a server is `store` and below.
//!
//! Modules:
//! - [`store`]: one store, whichever it is, with its time limit and its errors; `pgvector` and `qdrant` are the two, `secrets` what
//!   they authenticate with, `roots` whose certificates they trust;
//! - [`message`]: the passages within the bytes that they may have, and the message with them;
//! - [`files`]: the texts of a folder; [`chunk`]: their passages; [`index`]: a store made to hold just these.

pub mod chunk;
pub mod files;
pub mod index;
pub mod message;
pub mod secrets;
pub mod store;

mod pgvector;
mod qdrant;
mod roots;

/// A passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Its id in the store: a UUID.
    pub id: String,
    /// Its text.
    pub text: String,
    /// The file that it is from, relative to the folder that was indexed.
    pub source: String,
    /// Cosine of its vector and the request's.
    pub score: f64,
}

/// A passage to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// A UUID.
    pub id: String,
    /// Its text.
    pub text: String,
    /// The file that it is from.
    pub source: String,
    /// Its vector.
    pub vector: Vec<f32>,
}
