//! Entry points of the fuzz targets: bodies of every API, to what a worker is asked or a refusal.

use super::{
    anthropic, body, chat, classify, completions, embeddings, error::ApiError, fields::Fields, inference, ollama,
    rerank, responses, tokens,
};

/// Texts in one request.
const TEXTS_MAX: usize = 128;
/// What reads the JSON of one path.
type Reader = fn(Fields) -> Result<(), ApiError>;

/// Reads a body as each API that takes JSON does; how many of them would ask a worker.
#[must_use]
pub fn json_bodies(bytes: &[u8]) -> usize {
    let readers: [Reader; 13] = [
        |fields| chat::parse(fields).map(drop),
        |fields| completions::parse(fields, TEXTS_MAX).map(drop),
        embeddings::readable,
        rerank::readable,
        classify::readable,
        tokens::readable,
        tokens::ids_readable,
        responses::readable,
        anthropic::readable,
        ollama::readable::chat,
        ollama::readable::generate,
        ollama::readable::embed,
        |fields| inference::readable::generate(fields, TEXTS_MAX),
    ];
    readers.iter().filter(|reader| body::parse(bytes).and_then(reader).is_ok()).count()
}

/// Reads a body of the Open Inference Protocol's `/infer`, of which the first `json_bytes` are JSON; whether a worker
/// would be asked.
#[must_use]
pub fn tensors(bytes: &[u8], json_bytes: Option<usize>) -> bool {
    inference::readable::infer(bytes, json_bytes, TEXTS_MAX).is_ok()
}
