//! A reader with a byte allowance.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// A reader that ends when its allowance is used up. A few bytes of gzip can become a header of gigabytes, which an
/// archive reader would hold in memory.
pub(super) struct Bounded<R> {
    reader: R,
    allowance: Allowance,
}

/// Bytes that may still be read.
#[derive(Clone)]
pub(super) struct Allowance(Rc<Cell<u64>>);

impl<R: Read> Bounded<R> {
    pub(super) fn new(reader: R) -> (Self, Allowance) {
        let allowance = Allowance(Rc::new(Cell::new(0)));
        (Self { reader, allowance: allowance.clone() }, allowance)
    }
}

impl Allowance {
    /// Sets the allowance.
    pub(super) fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a header of an entry is too long"));
        }
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.reader.read(&mut buffer[..room])?;
        self.allowance.set(left - read as u64);
        Ok(read)
    }
}
