//! Packed adapters as files: packed once, then mapped by every worker with the same base.
//!
//! ```text
//! length of the header   8 bytes, little-endian
//! CRC-32 of all below    8 bytes, little-endian
//! header                 JSON of `Header`
//! zeros                  up to a multiple of 4,096
//! matrices               as in memory
//! ```
//!
//! An incomplete file, for instance after a power failure, is ignored; the CRC detects it. The CRC is no protection
//! against a writer, who could change it as well, and the artifact beside it. The numbers are protected by file
//! ownership: a file of another user, or a world-writable one, is ignored, as is one packed from another artifact. The
//! process is protected whatever a file contains: its ranks are checked against the model and the file's length before
//! any layout, and no scale may be NaN or infinite.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::{Memory, PackedAdapter, Ranks, places};
use crate::{architecture::Architecture, digest, graph::Precision, mapped, peft};

/// Incremented whenever the layout of an adapter changes.
const VERSION: u32 = 2;

/// Alignment of the matrices: a page on most systems.
const ALIGNMENT: usize = 4096;

/// Bytes before the header.
const FRONT: usize = 16;

/// Key of a packed adapter: artifact, base and scale. Each key has a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Key for the artifact with that digest, the base's shape and precision, and the scale.
    pub fn new(artifact: &str, base: &Architecture, precision: Precision, scale: f32) -> Self {
        let about = format!("{VERSION} {artifact} {base:?} {precision} {:08x}", scale.to_bits());
        Self(digest::of_bytes(about.as_bytes()))
    }

    fn file_name(&self) -> String {
        format!("{}.packed", self.0.replace(':', "-"))
    }
}

/// Header before the matrices.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// Its [`Key`].
    key: String,
    digest: String,
    rank_max: usize,
    target_modules: Vec<String>,
    /// Place and rank of each pair.
    ranks: Vec<(usize, usize, usize)>,
}

impl PackedAdapter {
    /// Writes it into the folder `dir`, creating the folder.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep(&self, dir: &Path, key: &Key) -> io::Result<()> {
        let ranks = self.ranks.iter().map(|(&(layer, index), &rank)| (layer, index, rank)).collect();
        let header = Header {
            key: key.0.clone(),
            digest: self.digest.clone(),
            rank_max: self.rank_max,
            target_modules: self.target_modules.clone(),
            ranks,
        };
        let header = serde_json::to_vec(&header)?;
        let begin = begin_of_matrices(header.len());
        let mut head = [(header.len() as u64).to_le_bytes(), [0; 8]].concat();
        head.extend(header);
        head.resize(begin, 0);
        let mut crc32 = crc32fast::Hasher::new();
        [&head[FRONT..], &self.memory].into_iter().for_each(|part| crc32.update(part));
        head[8..FRONT].copy_from_slice(&u64::from(crc32.finalize()).to_le_bytes());

        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
        file.write_all(&head)?;
        file.write_all(&self.memory)?;
        file.persist(dir.join(key.file_name()))?;
        Ok(())
    }

    /// Maps the file that [`PackedAdapter::keep`] wrote; `None` if there is no valid one.
    pub fn kept(dir: &Path, key: &Key, base: &Architecture, precision: Precision) -> Option<Self> {
        let path = dir.join(key.file_name());
        let file = File::open(&path).ok()?;
        if !is_ours(&file) {
            tracing::warn!(path = %path.display(), "a packed adapter is not this user's alone; packing it again");
            return None;
        }
        let map = mapped::map(&file).ok()?;
        let kept = Self::from_map(map, key, base, precision);
        if kept.is_none() {
            tracing::warn!(path = %path.display(), "a packed adapter is damaged; packing it again");
        }
        kept
    }

    fn from_map(map: Mmap, key: &Key, base: &Architecture, precision: Precision) -> Option<Self> {
        let (length, rest) = map.split_first_chunk::<8>()?;
        let (crc32, rest) = rest.split_first_chunk::<8>()?;
        if u64::from(crc32fast::hash(rest)) != u64::from_le_bytes(*crc32) {
            return None;
        }
        let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let begin = begin_of_matrices(header.len());
        let header: Header = serde_json::from_slice(header).ok()?;
        let ranks = header.ranks(base, map.len())?;
        let Header { key: found, digest, rank_max, target_modules, .. } = header;
        let (projections, bytes) = places(&ranks, base, precision);
        if found != key.0 || map.len() != begin.checked_add(bytes)? {
            return None;
        }
        let memory = Memory::Mapped { map, begin };
        let kept = Self { digest, rank_max, target_modules, ranks, projections, memory };
        let finite = (0..kept.projections.len())
            .filter_map(|projection| kept.projection(projection))
            .all(|projection| projection.is_finite());
        finite.then_some(kept)
    }
}

impl Header {
    /// The ranks, if they are valid for this base, agree with the rest of the header, and fit in a file of `length`
    /// bytes; so no size computation can overflow.
    fn ranks(&self, base: &Architecture, length: usize) -> Option<Ranks> {
        let (mut ranks, mut weights) = (Ranks::new(), 0_usize);
        for &(layer, index, rank) in &self.ranks {
            let linear = base.linear((layer, index)).filter(|_| rank > 0)?;
            weights = weights.checked_add(rank.checked_mul(linear.inputs.checked_add(linear.outputs)?)?)?;
            // A weight takes at least a byte.
            if weights > length || ranks.insert((layer, index), rank).is_some() {
                return None;
            }
        }
        let named = peft::target_modules(base, ranks.keys().copied()) == self.target_modules;
        (named && ranks.values().max().copied().unwrap_or(0) == self.rank_max).then_some(ranks)
    }
}

/// Whether it belongs to the user of this process and is not world-writable. It may be group-writable, as volumes
/// shared by pods are.
fn is_ours(file: &File) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    let user = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|found| found.uid() == user && found.mode() & OTHERS_WRITE == 0)
}

fn begin_of_matrices(header: usize) -> usize {
    (FRONT + header).next_multiple_of(ALIGNMENT)
}
