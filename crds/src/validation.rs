//! CEL rules shared by several kinds, for `x-kubernetes-validations`.

use serde_json::{Value, json};

/// The name of a referenced object.
pub(crate) fn name() -> Value {
    json!([{
        "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "message": "must be a DNS-1123 label: lower-case letters, digits and '-', beginning and ending with a letter or digit",
    }])
}

/// An object's own name, which callers put into `model`, so it must be as plain as a host name.
pub(crate) fn object_name() -> Value {
    json!([{
        "rule": "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "message": "metadata.name must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
    }])
}

/// The source of an artifact.
pub(crate) fn uri() -> Value {
    json!([{
        "rule": "self.matches('^(file:(///[^/]|[^/])|https?://[^/]|oci://[^/]+/[^/]|hf://[^/]+/[^/]|(s3|gs|az)://[^/]|pvc://[^/]+/[^/])')",
        "message": "must be oci://REGISTRY/REPOSITORY:TAG, hf://ORG/REPO, s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, https://…, pvc://CLAIM/PATH, or a file: URI, absolute as in file:///models/x.gguf or relative to the manifest's folder as in file:models/x.gguf",
    }])
}

/// The digest of an artifact.
pub(crate) fn digest() -> Value {
    json!([{
        "rule": "self.matches('^sha256:[0-9a-f]{64}$')",
        "message": "must be sha256: followed by 64 lower-case hexadecimal digits",
    }])
}

/// The URL of an endpoint, or of a proxy.
pub(crate) fn endpoint() -> Value {
    json!([{
        "rule": "self.matches('^https?://[^/?#@ ]+(/[^?#@ ]*)?$')",
        "message": "must be http:// or https:// with a host, and a path where there is one: without user, query and spaces",
    }])
}

/// The code of a currency.
pub(crate) fn currency() -> Value {
    json!([{
        "rule": "self.matches('^[A-Z]{3}$')",
        "message": "must be a code of ISO 4217: three capital letters, such as USD",
    }])
}

/// A positive factor. JSON has no infinity; the bound refuses numbers that are infinite as f32.
pub(crate) fn scale() -> Value {
    json!([{
        "rule": "self > 0.0 && self <= 1000000.0",
        "message": "must be a finite number above 0 (at most 1000000)",
    }])
}

/// An example of a text.
pub(crate) fn example() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 1024,
        "x-kubernetes-validations": not_blank(),
    })
}

/// Thresholds of a score.
pub(crate) fn thresholds() -> Value {
    json!([{ "rule": "self.outOfScope <= self.accept", "message": "outOfScope must be at most accept" }])
}

/// What happens to a request that no expert is for: one of three.
pub(crate) fn out_of_scope() -> Value {
    json!([{
        "rule": "[has(self.to), has(self.message), has(self.reject)].filter(there, there).size() == 1",
        "message": "must have exactly one of to, message and reject",
    }])
}

/// A route as a whole.
pub(crate) fn route() -> Value {
    json!([{
        "rule": "!(has(self.ensemble) && has(self.cascade))",
        "message": "must not have both ensemble and cascade: an ensemble has asked every expert already",
    }])
}

/// Several experts for one request.
pub(crate) fn ensemble() -> Value {
    json!([
        {
            "rule": "(self.combine == 'Judge') == has(self.judge)",
            "message": "judge must be set when combine is Judge, and only then",
        },
        {
            "rule": "!has(self.minimumAnswers) || self.minimumAnswers <= self.experts.size()",
            "message": "minimumAnswers must be at most the number of experts",
        },
    ])
}

/// A CEL expression; it is compiled elsewhere.
pub(crate) fn not_blank() -> Value {
    json!([{ "rule": "self.matches('[^ \\t\\r\\n]')", "message": "must not be blank" }])
}

/// Where passages are: one of two stores.
pub(crate) fn retrieve_source() -> Value {
    json!([{
        "rule": "has(self.pgvector) != has(self.qdrant)",
        "message": "must have exactly one of pgvector and qdrant",
    }])
}

/// The URL of a database, which everybody may read.
pub(crate) fn postgres_url() -> Value {
    json!([{
        "rule": "self.matches('^postgres(ql)?://([^:/?#@ ]+@)?[^/?#@ ]+/[^/?#@ ]+$')",
        "message": "must be postgres://USER@HOST:PORT/DATABASE without a password, which belongs into the Secret of secretRef, and without a query",
    }])
}

/// A table of PostgreSQL.
pub(crate) fn table() -> Value {
    json!([{
        "rule": "self.matches('^([a-z_][a-z0-9_]{0,62}[.])?[a-z_][a-z0-9_]{0,62}$')",
        "message": "must be a name or SCHEMA.NAME: of at most 63 lower-case letters, digits and '_', not beginning with a digit",
    }])
}

/// A collection of Qdrant, which is a part of a path.
pub(crate) fn collection() -> Value {
    json!([{
        "rule": "self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$')",
        "message": "must be of letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'",
    }])
}

/// The template of a message with passages.
pub(crate) fn template() -> Value {
    json!([{
        "rule": "self.contains('{passages}') && self.contains('{question}')",
        "message": "must have {passages} and {question}, which stand for the passages and for what the user wrote",
    }])
}
