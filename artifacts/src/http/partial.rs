//! Partial downloads, and whether they can be continued.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::cache::{job::Job, refs::hashed, remove};
use crate::validators::Validators;

const READ_BYTES: usize = 1 << 20;

/// A partial download. Its methods block.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    /// Bytes received so far.
    pub(crate) bytes: u64,
    note: Option<Note>,
    // Keeps other fetches away while a thread still writes.
    _job: Job,
}

/// Origin of the bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    /// Hash of the URL, whose query may be a secret.
    url: String,
    validators: Validators,
    /// Boot id of the machine that wrote them. A power cut may lose written bytes and leave zeros.
    boot: String,
}

/// Way to continue a download.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Continue {
    /// Restart from the first byte.
    Anew,
    /// Continue from this offset, conditional on the `If-Range` value; without one the digest verifies the result.
    From(u64, Option<String>),
}

impl Partial {
    /// Opens or creates the file at `path`, and hashes its content.
    pub(crate) fn open(path: PathBuf, job: Job, mut progress: impl FnMut(u64)) -> io::Result<Self> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        let note = fs::read(note_path(&path)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let (mut hasher, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Self { path, file, hasher, bytes, note, _job: job });
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
            progress(bytes);
        }
    }

    /// Digest of the received bytes, 64 hexadecimal digits.
    pub(crate) fn digest(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    /// Way to continue from `url`. `verified`: a digest is compared in the end.
    pub(crate) fn resume(&self, url: &str, verified: bool) -> Continue {
        decide(self.bytes, self.note.as_ref(), url, verified, boot())
    }

    /// Whether the answer with these validators continues the received bytes.
    pub(crate) fn continues(&self, now: &Validators) -> bool {
        let before = self.note.as_ref().and_then(|note| note.validators.etag.as_ref());
        before.is_none() || now.etag.is_none() || before == now.etag.as_ref()
    }

    /// Discards the received bytes, and records the new origin.
    pub(crate) fn restart(&mut self, url: &str, validators: &Validators) -> io::Result<()> {
        self.note = None;
        remove(&note_path(&self.path))?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.hasher, self.bytes) = (Sha256::new(), 0);
        let note = Note { url: hashed(url), validators: validators.clone(), boot: boot().to_owned() };
        fs::write(note_path(&self.path), serde_json::to_vec(&note)?)?;
        self.note = Some(note);
        Ok(())
    }

    /// Appends chunks until the channel closes.
    pub(crate) fn append(mut self, mut chunks: mpsc::Receiver<Bytes>) -> (Self, io::Result<()>) {
        while let Some(chunk) = chunks.blocking_recv() {
            if let Err(error) = self.file.write_all(&chunk) {
                // Part of the chunk may have been written, but it is not hashed.
                let cut = self.file.set_len(self.bytes).and_then(|()| self.file.seek(io::SeekFrom::End(0)));
                return (self, cut.and(Err(error)));
            }
            self.hasher.update(&chunk);
            self.bytes += chunk.len() as u64;
        }
        (self, Ok(()))
    }

    /// Leaves only the complete file.
    pub(crate) fn complete(self) -> io::Result<()> {
        self.file.sync_all()?;
        remove(&note_path(&self.path))
    }

    /// Removes everything.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove(&self.path)?;
        remove(&note_path(&self.path))
    }
}

fn decide(bytes: u64, note: Option<&Note>, url: &str, verified: bool, boot: &str) -> Continue {
    let here = note.filter(|note| note.url == hashed(url));
    let if_range = here.and_then(|note| note.validators.if_range());
    let lasted = here.is_some_and(|note| note.boot == boot);
    match (bytes, verified) {
        (0, _) => Continue::Anew,
        (_, true) => Continue::From(bytes, if_range),
        // Without a digest, nothing would detect two halves that do not belong together.
        (_, false) if lasted && if_range.is_some() => Continue::From(bytes, if_range),
        (_, false) => Continue::Anew,
    }
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

/// Identity of this boot; where it is unknown, every process counts as a boot of its own.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| format!("{:016x}", rand::random::<u64>()), |id| id.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_continued() {
        let note = |etag: &str, boot: &str| Note {
            url: hashed("url"),
            validators: Validators { etag: Some(etag.to_owned()), last_modified: None },
            boot: boot.to_owned(),
        };
        let tag = || Some("\"a\"".to_owned());
        let strong = note("\"a\"", "boot");
        for (bytes, note, url, verified, expected) in [
            (0, Some(&strong), "url", true, Continue::Anew),
            (7, Some(&strong), "url", true, Continue::From(7, tag())),
            (7, Some(&strong), "url", false, Continue::From(7, tag())),
            (7, Some(&strong), "other", true, Continue::From(7, None)),
            (7, Some(&strong), "other", false, Continue::Anew),
            (7, None, "url", true, Continue::From(7, None)),
            (7, None, "url", false, Continue::Anew),
            (7, Some(&note("W/\"a\"", "boot")), "url", false, Continue::Anew),
            (7, Some(&note("\"a\"", "before")), "url", false, Continue::Anew),
            (7, Some(&note("\"a\"", "before")), "url", true, Continue::From(7, tag())),
        ] {
            assert_eq!(decide(bytes, note, url, verified, "boot"), expected, "{bytes} {note:?} {url} {verified}");
        }
    }
}
