//! Retrieval of a route: passages of an index, which are put into a request before it is sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{route::Target, source::SecretRef, validation};

/// The word in a template that stands for the passages.
pub const PASSAGES: &str = "{passages}";
/// The word in a template that stands for the caller's text.
pub const QUESTION: &str = "{question}";

/// Retrieve puts passages of an index into the last message of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retrieve {
    /// Source of the passages.
    pub source: RetrieveSource,
    /// Encoder is the SlmModel with `task: Embed`, or the LoraAdapter on one, that makes vectors of texts. `slm index` uses the same.
    pub encoder: Target,
    /// Top is the number of passages that are asked for. Defaults to 4.
    #[serde(default = "top")]
    #[schemars(range(min = 1, max = 64))]
    pub top: u32,
    /// MinScore is the cosine that a passage needs at least. Unset: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1.0, max = 1.0))]
    pub min_score: Option<f64>,
    /// MaxBytes of all passages together: those that do not fit, the least similar first, are left out. Defaults to 8192.
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 256, max = 262_144))]
    pub max_bytes: u32,
    /// Template of the message. `{passages}` stands for the passages, `{question}` for what the user wrote. Unset: one that asks for
    /// the numbers of the passages that were used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192), extend("x-kubernetes-validations" = validation::template()))]
    pub template: Option<String>,
    /// TimeoutMilliseconds is the longest time for vector and passages together. Defaults to 2000.
    #[serde(default = "timeout_milliseconds")]
    #[schemars(range(min = 10, max = 60_000))]
    pub timeout_milliseconds: u32,
    /// OnError is what happens to a request for which nothing can be retrieved, such as when the store does not answer. Reject (the
    /// default): it is refused. Ignore: it is sent without passages, and the answer's metadata say so.
    #[serde(default)]
    pub on_error: RetrieveOnError,
}

/// RetrieveSource is where passages are: in exactly one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validation::retrieve_source()))]
pub struct RetrieveSource {
    /// Pgvector is a table of PostgreSQL with the extension pgvector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgvector: Option<Pgvector>,
    /// Qdrant is a collection of Qdrant, over its HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qdrant: Option<Qdrant>,
}

/// Pgvector is a table of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pgvector {
    /// Url of the database, without a password: `postgres://USER@HOST:PORT/DATABASE`.
    #[schemars(length(min = 14, max = 2048), extend("x-kubernetes-validations" = validation::postgres_url()))]
    pub url: String,
    /// Table, which `slm index` makes: a name, or SCHEMA.NAME.
    #[schemars(length(min = 1, max = 127), extend("x-kubernetes-validations" = validation::table()))]
    pub table: String,
    /// Tls is Require (the default): the server's certificate is checked; or Disable: everything goes in plain text.
    #[serde(default)]
    pub tls: StoreTls,
    /// CaBundle is PEM-encoded certificates of authorities that may sign the server's certificate, besides those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// SecretRef names a Secret with `password`, and `username` where the URL has none. The Secret needs the annotation `slmswarm.io/hosts`,
    /// which names the hosts that it may be sent to: HOST or HOST:PORT, separated by commas; `http://HOST:PORT` for one without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// Qdrant is a collection of Qdrant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Qdrant {
    /// Url of the HTTP API: `https://HOST:6333`.
    #[schemars(length(min = 8, max = 2048), extend("x-kubernetes-validations" = validation::endpoint()))]
    pub url: String,
    /// Collection, which `slm index` makes. Its vectors have no name.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = validation::collection()))]
    pub collection: String,
    /// CaBundle is PEM-encoded certificates of authorities that may sign the server's certificate, besides those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// SecretRef names a Secret with `token`, which is sent as the API key. The Secret needs the annotation `slmswarm.io/hosts`, which names
    /// the hosts that it may be sent to: HOST or HOST:PORT, separated by commas; `http://HOST:PORT` for one without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// StoreTls says whether a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum StoreTls {
    #[default]
    Require,
    Disable,
}

/// RetrieveOnError is what a failure to retrieve means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum RetrieveOnError {
    #[default]
    Reject,
    Ignore,
}

fn top() -> u32 {
    4
}

fn max_bytes() -> u32 {
    8192
}

fn timeout_milliseconds() -> u32 {
    2000
}
