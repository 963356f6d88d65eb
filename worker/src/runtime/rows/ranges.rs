//! Ranges of a bounded space: first fit from the beginning, so that what is in use stays near it.

use std::{collections::BTreeMap, ops::Range};

/// The free ranges of a space, by where they begin.
#[derive(Debug)]
pub(super) struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// All of `0..len` is free.
    pub(super) fn new(len: usize) -> Self {
        Self(BTreeMap::from([(0, len)]))
    }

    /// The first free range of that length, which is not free any more.
    pub(super) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let (&begin, &end) = self.0.iter().find(|&(begin, end)| end - begin >= len)?;
        self.0.remove(&begin);
        if begin + len < end {
            self.0.insert(begin + len, end);
        }
        Some(begin..begin + len)
    }

    /// `range`, which `take` gave, is free again.
    pub(super) fn give_back(&mut self, range: Range<usize>) {
        let Range { mut start, mut end } = range;
        if let Some((&before, &middle)) = self.0.range(..=start).next_back()
            && middle == start
        {
            start = before;
        }
        if let Some(behind) = self.0.remove(&end) {
            end = behind;
        }
        self.0.insert(start, end);
    }

    /// Length of all free ranges together.
    pub(super) fn free(&self) -> usize {
        self.0.iter().map(|(begin, end)| end - begin).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_range_that_fits_is_taken_and_neighbours_become_one() {
        let mut ranges = Ranges::new(100);
        let [a, b, c] = [10, 20, 30].map(|len| ranges.take(len).unwrap());
        assert_eq!((&a, &b, &c), (&(0..10), &(10..30), &(30..60)));
        ranges.give_back(a);
        assert_eq!(ranges.take(11), Some(60..71), "the hole is too small");
        ranges.give_back(b);
        assert_eq!(ranges.take(30), Some(0..30), "two holes side by side are one");
        assert_eq!((ranges.take(30), ranges.free()), (None, 29));
    }

    proptest! {
        #[test]
        fn no_two_ranges_overlap_and_nothing_is_lost(steps in prop::collection::vec((1..40usize, any::<bool>()), 1..60)) {
            let (mut ranges, mut taken) = (Ranges::new(200), Vec::<Range<usize>>::new());
            for (len, give_back) in steps {
                if give_back && !taken.is_empty() {
                    ranges.give_back(taken.swap_remove(len % taken.len()));
                } else if let Some(range) = ranges.take(len) {
                    prop_assert!(range.end <= 200 && taken.iter().all(|other| other.end <= range.start || range.end <= other.start));
                    taken.push(range);
                }
                prop_assert_eq!(ranges.free() + taken.iter().map(Range::len).sum::<usize>(), 200);
            }
            taken.into_iter().for_each(|range| ranges.give_back(range));
            prop_assert_eq!(ranges.take(200), Some(0..200));
        }
    }
}
