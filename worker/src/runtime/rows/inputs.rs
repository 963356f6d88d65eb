//! Small inputs of a run, as bytes for the device.

use std::ops::Range;

use super::plan::PREFILL_MAX;

/// Where the inputs lie in one block of device memory, which is written with one copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// Bound on the tokens of a run.
    tokens_max: usize,
    rows: usize,
}

impl Places {
    /// For runs of at most so many rows.
    pub(super) fn new(rows: usize) -> Self {
        Self { tokens_max: run_tokens(rows), rows }
    }

    pub(super) fn logits_indices(self) -> usize {
        0
    }

    pub(super) fn seqlens(self) -> usize {
        self.tokens_max * size_of::<i64>()
    }

    pub(super) fn units(self) -> usize {
        self.seqlens() + self.rows.next_multiple_of(2) * size_of::<i32>()
    }

    pub(super) fn ids(self) -> usize {
        self.units() + 2 * self.rows * size_of::<i32>()
    }

    pub(super) fn positions(self) -> usize {
        self.ids() + self.tokens_max * size_of::<i64>()
    }

    pub(super) fn pasts(self) -> usize {
        self.positions() + self.tokens_max * size_of::<i64>()
    }

    pub(super) fn bytes(self) -> usize {
        self.pasts() + self.rows * size_of::<i64>()
    }

    /// Bound on the tokens of a run, padding included.
    pub(super) fn tokens_max(self) -> usize {
        self.tokens_max
    }
}

/// Bound on the tokens of a run where there are so many rows.
pub(in crate::runtime) fn run_tokens(rows: usize) -> usize {
    rows.next_power_of_two().max(PREFILL_MAX)
}

/// The inputs of a run of `rows` rows with `tokens` tokens each.
#[derive(Debug)]
pub(super) struct Inputs {
    places: Places,
    bytes: Vec<u8>,
    tokens: usize,
    wanted: usize,
}

impl Inputs {
    pub(super) fn new(places: Places, tokens: usize) -> Self {
        Self { places, bytes: vec![0; places.bytes()], tokens, wanted: 0 }
    }

    /// The new tokens of `row`, behind `past` others.
    pub(super) fn row(&mut self, row: usize, past: usize, ids: &[u32]) {
        let last = (past + self.tokens - 1) as i32;
        self.put(self.places.seqlens() + row * size_of::<i32>(), last.to_le_bytes());
        self.put(self.places.pasts() + row * size_of::<i64>(), (past as i64).to_le_bytes());
        for index in 0..self.tokens {
            let at = (row * self.tokens + index) * size_of::<i64>();
            let id = ids.get(index).copied().unwrap_or(0);
            self.put(self.places.ids() + at, i64::from(id).to_le_bytes());
            self.put(self.places.positions() + at, ((past + index) as i64).to_le_bytes());
        }
    }

    /// Units of the bank that the adapter of `row` has.
    pub(super) fn adapter(&mut self, row: usize, units: &Range<usize>) {
        let at = self.places.units() + 2 * row * size_of::<i32>();
        self.put(at, (units.start as i32).to_le_bytes());
        self.put(at + size_of::<i32>(), (units.end as i32).to_le_bytes());
    }

    /// Token `token` of `row` needs the next row of logits.
    pub(super) fn want(&mut self, row: usize, token: usize) {
        let at = self.places.logits_indices() + self.wanted * size_of::<i64>();
        self.put(at, ((row * self.tokens + token) as i64).to_le_bytes());
        self.wanted += 1;
    }

    /// Rows of logits that are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }
}

/// Mask of projections of `linears` linear layers: `units` units for each row, of which a row's own are true.
pub(super) fn mask(rows: &[Option<Range<usize>>], units: usize, linears: usize) -> Vec<u8> {
    let mut mask = vec![0; rows.len() * units * linears];
    for (row, own) in mask.chunks_exact_mut((units * linears).max(1)).zip(rows) {
        if let Some(own) = own {
            row[own.start * linears..own.end * linears].fill(1);
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_has_positions_and_rows_have_their_own() {
        let places = Places::new(3);
        let mut inputs = Inputs::new(places, 4);
        inputs.row(1, 7, &[5, 6]);
        inputs.want(1, 1);
        inputs.adapter(1, &(3..7));
        let i64s = |at: usize, count: usize| -> Vec<i64> {
            inputs.bytes[at..][..count * 8].as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        };
        assert_eq!(i64s(places.ids(), 8), [0, 0, 0, 0, 5, 6, 0, 0]);
        assert_eq!(i64s(places.positions(), 8)[4..], [7, 8, 9, 10]);
        assert_eq!(i64s(places.pasts(), 3), [0, 7, 0]);
        assert_eq!((i64s(places.logits_indices(), 1), inputs.wanted()), (vec![5], 1));
        assert_eq!(inputs.bytes[places.seqlens() + 4..][..4], 10i32.to_le_bytes());
        assert_eq!(inputs.bytes[places.units()..][..16], [0, 0, 3, 7].map(i32::to_le_bytes).concat());
        assert!(places.ids().is_multiple_of(8), "aligned for 64 bits");
    }

    #[test]
    fn a_row_sees_the_columns_of_its_adapter_in_every_linear_layer() {
        assert_eq!(mask(&[None, Some(1..3)], 4, 2), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]);
    }
}
