//! Files as bytes: large ones mapped, small ones read under a limit.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use crate::anonymous::Anonymous;
use crate::disguise;

/// Up to this size a file is read rather than mapped: all adapters are, and they are the files that people replace
/// while they are served. A mapped file that is cut short ends the process; one that was read only looks truncated.
const READ_BYTES_MAX: u64 = 64 << 20;

/// A weight file as bytes.
///
/// # Assumptions
/// Whoever replaces a large file does so by rename, never by writing into it: what is mapped then stays as it was.
#[derive(Debug)]
pub(crate) enum Mapped {
    /// In memory of our own.
    Read(Anonymous),
    /// In the page cache.
    Mapped(memmap2::Mmap),
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        if metadata.len() <= READ_BYTES_MAX {
            // Where a page begins, the system copies several times as fast as elsewhere.
            let mut bytes = Anonymous::zeroed(metadata.len() as usize)?;
            file.read_exact(&mut bytes)?;
            disguise::check(&bytes)?;
            return Ok(Self::Read(bytes));
        }
        Ok(Self::Mapped(map(&file)?))
    }
}

/// A file that is made whole beside its place and renamed into it, in the page cache.
pub(crate) fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: a mapping is unsound when the file is written or cut while mapped. Such files are not: the mapped inode never
    // changes.
    #[allow(unsafe_code)]
    unsafe {
        memmap2::Mmap::map(file)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// Reads a file of at most `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let problem = format!("larger than the {bytes_max} bytes that such a file may have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    disguise::check(&bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(read(&path, 4).unwrap_err().to_string().contains("4 bytes"));
    }

    #[test]
    fn an_empty_file_has_no_bytes_and_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(Mapped::open(&path).unwrap().is_empty());
        assert!(Mapped::open(dir.path()).is_err());
    }
}
