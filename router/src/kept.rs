//! Vectors of texts that were asked for, within a bound: each tenant's for itself, so that nobody can find out by the time of an
//! answer what others have asked.

use std::sync::Arc;

use lru::LruCache;
use sha2::{Digest as _, Sha256};
use slm_crds::route::Target;

/// Bytes of the vectors that are kept.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Vectors by the hash of tenant, encoder and text.
#[derive(Debug)]
pub(crate) struct Kept {
    vectors: LruCache<[u8; 32], Arc<[f32]>>,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { vectors: LruCache::unbounded(), bytes: 0 }
    }
}

impl Kept {
    pub(crate) fn get(&mut self, key: &[u8; 32]) -> Option<Arc<[f32]>> {
        self.vectors.get(key).map(Arc::clone)
    }

    pub(crate) fn put(&mut self, key: [u8; 32], vector: Arc<[f32]>) {
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

/// What a vector is kept by.
pub(crate) fn key(tenant: &str, encoder: &Target, digest: &str, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [tenant, &encoder.name, digest] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update(text);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use slm_crds::route::TargetKind;

    use super::*;

    #[test]
    fn what_is_kept_has_a_bound_and_an_owner() {
        let mut kept = Kept::default();
        let encoder = Target { kind: TargetKind::SlmModel, name: "e".to_owned() };
        let key = |tenant: &str, text: &str| key(tenant, &encoder, "sha256:1", text);
        assert_ne!(key("a", "text"), key("b", "text"));
        assert_ne!(key("a", "btext"), key("ab", "text"));
        let vector: Arc<[f32]> = vec![0.0; 1 << 20].into();
        for text in 0..20 {
            kept.put(key("a", &text.to_string()), Arc::clone(&vector));
            kept.put(key("a", &text.to_string()), Arc::clone(&vector));
        }
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.bytes == kept.vectors.len() * bytes(&vector));
        assert_eq!(kept.vectors.len(), 7);
        assert!(kept.get(&key("a", "19")).is_some() && kept.get(&key("a", "12")).is_none());
    }
}
