//! The CPU provider's logits, kept in the folder of the converted model: a header, their SHA-256, and the values as little-endian
//! f32.

use std::{fs, io::Write, path::PathBuf};

use sha2::{Digest, Sha256};
use slm_convert::bundle::Bundle;

use super::Golden;

/// Changes with what is computed.
const HEADER: &[u8; 16] = b"slm self-check 1";
const DIGEST_BYTES: usize = 32;

/// The kept logits; `None` if there are none, or not these, whole.
pub(super) fn read(bundle: &Bundle, golden: &Golden) -> Option<Vec<f32>> {
    let bytes = fs::read(path(bundle, golden)).ok()?;
    let (digest, values) = bytes.strip_prefix(HEADER)?.split_at_checked(DIGEST_BYTES)?;
    let whole = values.len() == golden.values() * size_of::<f32>() && *digest == *Sha256::digest(values);
    whole.then(|| {
        values.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
    })
}

/// Keeps the logits. Where that is not possible, they are computed again the next time.
pub(super) fn write(bundle: &Bundle, golden: &Golden, logits: &[f32]) {
    let values: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
    let written = tempfile::NamedTempFile::new_in(&bundle.dir).and_then(|mut file| {
        file.write_all(HEADER)?;
        file.write_all(&Sha256::digest(&values))?;
        file.write_all(&values)?;
        file.persist(path(bundle, golden))?;
        Ok(())
    });
    if let Err(error) = written {
        tracing::debug!(%error, folder = %bundle.dir.display(), "the logits of the self-check are not kept");
    }
}

/// One file for each context and rank.
fn path(bundle: &Bundle, golden: &Golden) -> PathBuf {
    bundle.dir.join(format!("self-check-{}-{}.logits", golden.context_length(), golden.rank()))
}
