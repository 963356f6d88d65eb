//! Bounds-checked cursor over a GGUF file.

use std::path::{Path, PathBuf};

use super::GgufError;

/// Reads little-endian values in sequence.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, position: 0 }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn slice(&mut self, what: &str, length: u64) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.position..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| GgufError::Truncated {
            path: self.path(),
            what: what.to_owned(),
            needed: (self.position as u64).saturating_add(length),
            file: self.bytes.len() as u64,
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    pub(super) fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(what, N as u64)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.take(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.take(what).map(u64::from_le_bytes)
    }

    /// A length-prefixed UTF-8 string.
    pub(super) fn text(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let length = self.u64(what)?;
        let bytes = self.slice(what, length)?;
        std::str::from_utf8(bytes).map_err(|error| self.bad(what, &format!("not UTF-8: {error}")))
    }

    /// A count of items that take at least `bytes_each` each.
    pub(super) fn count(&mut self, what: &str, bytes_each: usize) -> Result<usize, GgufError> {
        let count = self.u64(what)?;
        self.fits(what, count, bytes_each)
    }

    /// `count`, if the rest of the file can hold that many items.
    pub(super) fn fits(&self, what: &str, count: u64, bytes_each: usize) -> Result<usize, GgufError> {
        let most = (self.remaining() / bytes_each) as u64;
        if count > most {
            let remaining = self.remaining() as u64;
            return Err(GgufError::Count { path: self.path(), what: what.to_owned(), count, remaining });
        }
        Ok(count as usize)
    }

    pub(super) fn bad(&self, field: &str, problem: &str) -> GgufError {
        GgufError::Malformed { path: self.path(), field: field.to_owned(), problem: problem.to_owned() }
    }
}
