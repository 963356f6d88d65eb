//! Memory that starts on a cache line, so that no vector load of a kernel crosses one.
#![allow(unsafe_code)] // Views of plain bytes; there is no safe way to ask `Vec` for an alignment.

use std::slice;

/// Bytes of a cache line, and of the widest vector.
pub(crate) const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Zeroed bytes that begin on a cache line.
#[derive(Default)]
pub(crate) struct Bytes {
    lines: Vec<Line>,
}

impl Bytes {
    /// At least `len` bytes of zero.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; LINE]); len.div_ceil(LINE)] }
    }

    /// Makes room for `len` bytes; what is in them is unspecified. Only growth beyond any former size allocates.
    pub(crate) fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(LINE), Line([0; LINE]));
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the lines are initialised bytes without padding, borrowed as long as the result.
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * LINE) }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the lines are initialised bytes without padding, borrowed as exclusively as the result.
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * LINE) }
    }
}
