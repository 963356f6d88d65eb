//! A store made to hold the passages of a folder, and nothing else.
//!
//! The id of a passage is a digest over encoder, file and text: what is there already is not made again, and what no file has any more
//! is removed. New passages are stored before old ones are removed, so that a request finds one of both at any time.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    Row,
    chunk::{Sizes, chunks},
    files::Texts,
    store::{Store, StoreError},
};

/// Texts of one request to the encoder, and passages of one to the store.
const BATCH: usize = 32;

/// What makes vectors.
pub trait Embed {
    /// Why it makes none.
    type Error: std::fmt::Display;

    /// A vector for each text, and the digest of the encoder that made them.
    fn embed(&self, texts: Vec<String>) -> impl Future<Output = Result<(Vec<Vec<f32>>, String), Self::Error>> + Send;
}

/// The reason why a store does not hold the folder.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The encoder makes no vectors.
    #[error("the encoder: {0}")]
    Encoder(String),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Passages of the folder.
    pub passages: usize,
    /// Those that were new.
    pub added: usize,
    /// Those that were there and belong to no file any more.
    pub removed: usize,
}

/// Makes `store` hold the passages of `folder`. `progress` is told how many of how many new ones are stored.
///
/// # Errors
/// The encoder or the store refuses. What was stored until then stays, and the next run goes on from there.
pub async fn index<E: Embed>(
    store: &Store,
    encoder: &E,
    folder: &Texts,
    sizes: Sizes,
    mut progress: impl FnMut(usize, usize),
) -> Result<Done, IndexError> {
    let failed = |error: E::Error| IndexError::Encoder(error.to_string());
    let (probe, digest) = encoder.embed(vec!["passage".to_owned()]).await.map_err(failed)?;
    let dimension = probe.first().map_or(0, Vec::len);
    if dimension == 0 {
        return Err(IndexError::Encoder("it made no vector".to_owned()));
    }
    store.prepare(dimension).await?;
    let there = store.list().await?;
    let Plan { wanted, new, gone } = plan(folder, &there, &digest, sizes);
    let (added, removed) = (new.len(), gone.len());
    for (place, batch) in new.chunks(BATCH).enumerate() {
        let texts = batch.iter().map(|passage| passage.text.clone()).collect();
        let (vectors, made_by) = encoder.embed(texts).await.map_err(failed)?;
        if made_by != digest {
            return Err(IndexError::Encoder("it was replaced meanwhile; run again".to_owned()));
        }
        if vectors.len() != batch.len() || vectors.iter().any(|vector| vector.len() != dimension) {
            return Err(IndexError::Encoder("it did not make a vector for each text".to_owned()));
        }
        let row = |(passage, vector): (&New, Vec<f32>)| Row {
            id: passage.id.clone(),
            text: passage.text.clone(),
            source: passage.source.clone(),
            vector,
        };
        store.put(&batch.iter().zip(vectors).map(row).collect::<Vec<_>>()).await?;
        progress((place * BATCH + batch.len()).min(added), added);
    }
    for batch in gone.chunks(1000) {
        store.remove(batch).await?;
    }
    Ok(Done { passages: wanted, added, removed })
}

/// What differs.
struct Plan {
    wanted: usize,
    new: Vec<New>,
    gone: Vec<String>,
}

/// A passage without its vector.
struct New {
    id: String,
    text: String,
    source: String,
}

fn plan(folder: &Texts, there: &HashMap<String, String>, digest: &str, sizes: Sizes) -> Plan {
    let mut wanted = HashSet::new();
    let mut new = Vec::new();
    for (source, text) in &folder.texts {
        for text in chunks(text, sizes) {
            let id = id(digest, source, &text);
            if wanted.insert(id.clone()) && !there.contains_key(&id) {
                new.push(New { id, text, source: source.clone() });
            }
        }
    }
    let unread = |source: &String| folder.skipped.iter().any(|(path, _)| path == source);
    let gone = there.iter().filter(|(id, source)| !wanted.contains(*id) && !unread(source));
    let mut gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
    gone.sort();
    Plan { wanted: wanted.len(), new, gone }
}

/// A UUID, which both stores take.
fn id(digest: &str, source: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    for part in [digest, source, text] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut bytes = hash.finalize();
    // Version 8, of one's own making, and the variant of RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(&bytes[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_done() {
        let sizes = Sizes { most: 100, overlap: 10 };
        let text = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let mut folder = Texts { texts: vec![text("a", "one\n\n# x\ntwo"), text("b", "three")], skipped: vec![] };
        let all = plan(&folder, &HashMap::new(), "d", sizes);
        assert_eq!((all.wanted, all.new.len(), all.gone.len()), (3, 3, 0));
        let there: HashMap<_, _> = all.new.iter().map(|new| (new.id.clone(), new.source.clone())).collect();
        let again = plan(&folder, &there, "d", sizes);
        assert_eq!((again.new.len(), again.gone.len()), (0, 0));
        // Another encoder makes other vectors.
        let other = plan(&folder, &there, "e", sizes);
        assert_eq!((other.new.len(), other.gone.len()), (3, 3));
        // A file that is gone, and one that cannot be read now.
        folder.texts.truncate(1);
        assert_eq!(plan(&folder, &there, "d", sizes).gone.len(), 1);
        folder.skipped.push(text("b", "not UTF-8"));
        assert_eq!(plan(&folder, &there, "d", sizes).gone.len(), 0);
        assert_eq!(all.new[0].id.len(), 36);
    }
}
