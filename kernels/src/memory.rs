//! Cache-line-aligned memory, so that no vector load of a kernel crosses a line.
#![allow(unsafe_code)] // Views of plain bytes; there is no safe way to ask `Vec` for an alignment.

use std::{ops::Range, slice};

/// Bytes of a cache line, and of the widest vector.
pub(crate) const LINE: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Zeroed bytes that begin on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    lines: Vec<Line>,
}

impl Bytes {
    /// At least `len` bytes of zero.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; LINE]); len.div_ceil(LINE)] }
    }

    /// Resizes to `len` bytes with unspecified content. Allocates only beyond any former size.
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

/// Prefetches the line at `p`, which need not be valid.
#[inline(always)]
pub(crate) fn fetch_line(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every such CPU has the instruction, and a prefetch of any address is harmless.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", not(miri)))))]
    let _ = p;
}

/// Prefetches elements of a slice, as far as they exist.
pub(crate) fn fetch<T>(slice: &[T], elements: Range<usize>) {
    let wanted = slice.get(elements).unwrap_or_default();
    for line in (0..size_of_val(wanted)).step_by(LINE) {
        fetch_line(wanted.as_ptr().cast::<u8>().wrapping_add(line));
    }
}
