//! A packed adapter as a file: laid out once, mapped ever after by whoever serves the same base.
//!
//! ```text
//! length of the header   8 bytes, little-endian
//! CRC-32 of all below    8 bytes, little-endian
//! header                 JSON: what `Header` says
//! zeros                  up to a multiple of 4,096
//! matrices               as they are in memory
//! ```
//!
//! A file that is not whole, for instance because the machine went down, counts for none.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::{Memory, PackedAdapter, places};
use crate::{config::ModelConfig, digest, graph::Precision, mapped, peft::Module};

/// Grows whenever the same adapter would be laid out otherwise.
const VERSION: u32 = 1;

/// Where the matrices begin is a multiple of this: a page, for most systems.
const ALIGNMENT: usize = 4096;

/// Bytes before the header.
const FRONT: usize = 16;

/// What an adapter was laid out for: another has a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// For a base of that shape and precision, and that scale.
    pub fn new(config: &ModelConfig, precision: Precision, scale: f32) -> Self {
        let about = format!("{VERSION} {config:?} {precision} {:08x}", scale.to_bits());
        Self(digest::of_bytes(about.as_bytes()))
    }

    fn file_name(&self) -> String {
        format!("{}.packed", self.0.replace(':', "-"))
    }
}

/// What stands before the matrices.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The [`Key`].
    key: String,
    digest: String,
    rank_max: usize,
    target_modules: Vec<String>,
    /// Layer, number in [`Module::ALL`] and rank of each pair.
    ranks: Vec<(usize, usize, usize)>,
}

impl PackedAdapter {
    /// Keeps it in the folder `dir`, which is made.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep(&self, dir: &Path, key: &Key) -> io::Result<()> {
        let ranks = self.ranks.iter().map(|(&(layer, module), &rank)| (layer, module as usize, rank)).collect();
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

    /// What [`PackedAdapter::keep`] left there, mapped; `None` where there is nothing, or nothing whole.
    pub fn kept(dir: &Path, key: &Key, config: &ModelConfig, precision: Precision) -> Option<Self> {
        let path = dir.join(key.file_name());
        let map = mapped::map(&File::open(&path).ok()?).ok()?;
        let kept = Self::from_map(map, key, config, precision);
        if kept.is_none() {
            tracing::warn!(path = %path.display(), "a packed adapter is damaged; packing it again");
        }
        kept
    }

    fn from_map(map: Mmap, key: &Key, config: &ModelConfig, precision: Precision) -> Option<Self> {
        let (length, rest) = map.split_first_chunk::<8>()?;
        let (crc32, rest) = rest.split_first_chunk::<8>()?;
        if u64::from(crc32fast::hash(rest)) != u64::from_le_bytes(*crc32) {
            return None;
        }
        let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let begin = begin_of_matrices(header.len());
        let Header { key: found, digest, rank_max, target_modules, ranks } = serde_json::from_slice(header).ok()?;
        let pair = |(layer, module, rank): (usize, usize, usize)| Some(((layer, *Module::ALL.get(module)?), rank));
        let ranks = ranks.into_iter().map(pair).collect::<Option<_>>()?;
        let (groups, bytes) = places(&ranks, config, precision);
        let fits = found == key.0 && map.len() == begin + bytes;
        let memory = Memory::Mapped { map, begin };
        fits.then_some(Self { digest, rank_max, target_modules, ranks, groups, memory })
    }
}

fn begin_of_matrices(header: usize) -> usize {
    (FRONT + header).next_multiple_of(ALIGNMENT)
}
