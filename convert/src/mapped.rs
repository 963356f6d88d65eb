//! Files as bytes: large ones mapped, small ones read up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use crate::anonymous::Anonymous;
use crate::disguise;

/// Files up to this size are read rather than mapped. That includes all adapters, which people replace while they are
/// served: truncating a mapped file kills the process, truncating a file that was read does not.
const READ_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a weight file.
///
/// # Assumptions
/// Large files are replaced by a rename, never rewritten in place, so that a mapping does not change.
#[derive(Debug)]
pub(crate) enum Mapped {
    /// Read into memory of our own.
    Read(Anonymous),
    /// Mapped from the page cache.
    Mapped(memmap2::Mmap),
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = open(path)?;
        let metadata = file.metadata()?;
        if metadata.len() <= READ_BYTES_MAX {
            // Copying into page-aligned memory is several times as fast.
            let mut bytes = Anonymous::zeroed(metadata.len() as usize)?;
            file.read_exact(&mut bytes)?;
            disguise::check(&bytes)?;
            return Ok(Self::Read(bytes));
        }
        Ok(Self::Mapped(map(&file)?))
    }
}

/// Opens a regular file. Another one is refused: opening a pipe would wait for a writer.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
    }
    File::open(path)
}

/// Maps a file that was completed elsewhere and renamed into place.
pub(crate) fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: a mapping is unsound if the file is written or truncated while mapped. Such files are replaced by
    // renames, so the mapped inode never changes.
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

/// Reads a file of at most `bytes_max` bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
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
