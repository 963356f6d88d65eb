//! What was read of texts, within a bound: each tenant's for itself, so that nobody can find out by the time of an answer what others
//! have asked. A vector of an encoder, or the probabilities of a classifier.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

use super::readers::Reader;

/// Bytes of the numbers that are kept.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// What was read of texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<Inner>>);

/// Numbers by the hash of tenant, reader and text.
#[derive(Debug)]
struct Inner {
    vectors: LruCache<[u8; 32], Arc<[f32]>>,
    bytes: usize,
}

impl Default for Inner {
    fn default() -> Self {
        Self { vectors: LruCache::unbounded(), bytes: 0 }
    }
}

impl Kept {
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<Arc<[f32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).vectors.get(key).map(Arc::clone)
    }

    pub(crate) fn put(&self, key: [u8; 32], vector: Arc<[f32]>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, vector);
    }
}

impl Inner {
    fn put(&mut self, key: [u8; 32], vector: Arc<[f32]>) {
        self.bytes += bytes(&vector);
        if let Some(former) = self.vectors.put(key, vector) {
            self.bytes -= bytes(&former);
        }
        while self.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = self.vectors.pop_lru() else { return };
            self.bytes -= bytes(&oldest);
        }
    }
}

/// With what an entry of the map has beside its numbers.
fn bytes(vector: &[f32]) -> usize {
    size_of_val(vector) + 128
}

/// What the numbers of a text are kept by.
pub(crate) fn key(tenant: &str, reader: &Reader<'_>, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [tenant, reader.role, &reader.target.name, reader.digest] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update(text);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use slm_crds::route::{Target, TargetKind};

    use super::*;

    #[test]
    fn what_is_kept_has_a_bound_and_an_owner() {
        let kept = Kept::default();
        let encoder = Target { kind: TargetKind::SlmModel, name: "e".to_owned() };
        let reader = Reader::encoder(&encoder, "sha256:1");
        let key = |tenant: &str, text: &str| key(tenant, &reader, text);
        assert_ne!(key("a", "text"), key("b", "text"));
        assert_ne!(key("a", "btext"), key("ab", "text"));
        let vector: Arc<[f32]> = vec![0.0; 1 << 20].into();
        for text in 0..20 {
            kept.put(key("a", &text.to_string()), Arc::clone(&vector));
            kept.put(key("a", &text.to_string()), Arc::clone(&vector));
        }
        {
            let inner = kept.0.lock().expect("a lock");
            assert!(inner.bytes <= KEPT_BYTES_MAX && inner.bytes == inner.vectors.len() * bytes(&vector));
            assert_eq!(inner.vectors.len(), 7);
        }
        assert!(kept.get(&key("a", "19")).is_some() && kept.get(&key("a", "12")).is_none());
    }
}
