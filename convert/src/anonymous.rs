//! Anonymous memory mappings.

use std::{
    io,
    ops::{Deref, DerefMut},
};

use memmap2::{Advice, MmapMut};

/// A large page: the system finds and zeroes one much faster than as many small ones.
const LARGE_PAGE: usize = 2 << 20;

/// Divisor of a length: the padding that may be added to end on a large page.
const SPARE: usize = 8;

/// Zeroed, page-aligned memory, in large pages where available. Dropping it returns all of it to the system, while an
/// allocator would keep fragments.
#[derive(Debug)]
pub(crate) struct Anonymous {
    map: MmapMut,
    begin: usize,
    len: usize,
}

impl Anonymous {
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        if len < LARGE_PAGE {
            return Ok(Self { map: MmapMut::map_anon(len)?, begin: 0, len });
        }
        // Untouched pages take no memory.
        let map = MmapMut::map_anon(len + 2 * LARGE_PAGE)?;
        let begin = map.as_ptr().align_offset(LARGE_PAGE);
        let whole = len.next_multiple_of(LARGE_PAGE);
        let large = if whole - len <= len / SPARE { whole } else { len };
        // A system without large pages refuses, and uses small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(Advice::HugePage, begin, large);
        Ok(Self { map, begin, len })
    }
}

impl Deref for Anonymous {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.begin..][..self.len]
    }
}

impl DerefMut for Anonymous {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.begin..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_length_it_is_zero_and_can_be_written() {
        for len in [0, 1, 4096, LARGE_PAGE - 1, LARGE_PAGE, 2 * LARGE_PAGE + 1] {
            let mut bytes = Anonymous::zeroed(len).unwrap();
            assert!(bytes.len() == len && bytes.iter().all(|byte| *byte == 0), "{len}");
            assert_eq!(bytes.as_ptr().align_offset(if len < LARGE_PAGE { 64 } else { LARGE_PAGE }), 0, "{len}");
            bytes.fill(7);
        }
    }
}
