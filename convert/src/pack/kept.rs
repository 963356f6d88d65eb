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
//! A file that is not whole, for instance because the machine went down, counts for none. The CRC is for that: whoever may
//! write the file may write its sum as well, of whatever kind, and the artifact beside it. What protects the numbers is who
//! may write there; so a file of another user, or one that everybody may write, counts for none either, nor does one that was
//! made of another artifact. What protects the process, whatever a file holds, is that its ranks are held against each other
//! and against its length before anything is laid out by them, and that no scale is NaN or infinite.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::{Memory, PackedAdapter, Ranks, places};
use crate::{config::ModelConfig, digest, graph::Precision, mapped, peft::Module};

/// Grows whenever the same adapter would be laid out otherwise.
const VERSION: u32 = 2;

/// Where the matrices begin is a multiple of this: a page, for most systems.
const ALIGNMENT: usize = 4096;

/// Bytes before the header.
const FRONT: usize = 16;

/// What an adapter was laid out for: another has a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Of the artifact of that digest, for a base of that shape and precision, and that scale.
    pub fn new(artifact: &str, config: &ModelConfig, precision: Precision, scale: f32) -> Self {
        let about = format!("{VERSION} {artifact} {config:?} {precision} {:08x}", scale.to_bits());
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
        let file = File::open(&path).ok()?;
        if !is_ours(&file) {
            tracing::warn!(path = %path.display(), "a packed adapter is not this user's alone; packing it again");
            return None;
        }
        let map = mapped::map(&file).ok()?;
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
        let header: Header = serde_json::from_slice(header).ok()?;
        let ranks = header.ranks(config, map.len())?;
        let Header { key: found, digest, rank_max, target_modules, .. } = header;
        let (groups, bytes) = places(&ranks, config, precision);
        if found != key.0 || map.len() != begin.checked_add(bytes)? {
            return None;
        }
        let memory = Memory::Mapped { map, begin };
        let kept = Self { digest, rank_max, target_modules, ranks, groups, memory };
        let finite = (0..kept.groups.len()).filter_map(|group| kept.group(group)).all(|group| group.is_finite());
        finite.then_some(kept)
    }
}

impl Header {
    /// The ranks, if all of them are of this base, agree with the rest of the header, and matrices of theirs fit in a file
    /// of `length` bytes: then no sum or product of the layout overflows.
    fn ranks(&self, config: &ModelConfig, length: usize) -> Option<Ranks> {
        let (mut ranks, mut weights) = (Ranks::new(), 0_usize);
        for &(layer, module, rank) in &self.ranks {
            let module = *Module::ALL.get(module).filter(|_| layer < config.layers && rank > 0)?;
            let (inputs, outputs) = module.dimensions(config);
            weights = weights.checked_add(rank.checked_mul(inputs.checked_add(outputs)?)?)?;
            // A weight takes a byte at least.
            if weights > length || ranks.insert((layer, module), rank).is_some() {
                return None;
            }
        }
        let modules: BTreeSet<Module> = ranks.keys().map(|&(_, module)| module).collect();
        let named = modules.into_iter().map(Module::name).eq(self.target_modules.iter().map(String::as_str));
        (named && ranks.values().max().copied().unwrap_or(0) == self.rank_max).then_some(ranks)
    }
}

/// Whether it belongs to the user of this process, and not everybody may write it. Its group may: volumes in a cluster are
/// made so for the pods that share them.
fn is_ours(file: &File) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    let user = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|found| found.uid() == user && found.mode() & OTHERS_WRITE == 0)
}

fn begin_of_matrices(header: usize) -> usize {
    (FRONT + header).next_multiple_of(ALIGNMENT)
}
