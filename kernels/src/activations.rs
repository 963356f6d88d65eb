//! Activations in 8 bits: a scale for each row and block, and sums that cancel the weights' offsets.
//!
//! A block's scale is an integer multiple of its row's unit, so that a kernel can apply it to sums of products before
//! or after their conversion to floats; the unit is applied at the end.
//!
//! Rows are grouped in panels of at most [`PANEL`], and a panel is stored block by block: `[block][row][inputs of the
//! block]`. So all that a kernel reads for one block is contiguous, at strides known at compile time, and the panel of
//! a wide matrix does not collide in few cache sets.
#![allow(unsafe_code)] // Rows are written by several threads; bounds are checked once per call.

use std::{array, marker::PhantomData, ops::Range};

use crate::{format::BLOCK, level::Level, memory::Bytes, numbers::nearest};

/// Bound on the rows of a panel: the most rows that any kernel computes at once.
pub(crate) const PANEL: usize = 12;

/// Multiplier of the row's largest block scale, in units of the row: as fine as fits the 16 bits that `maddwd` takes.
const MULTIPLIER_MAX: f32 = 32767.0;

/// Data of one row and block besides its quants.
///
/// `minus` are the negated sums of the quants that a 16-bit lane of `maddubs` meets (the first two and the last two
/// of each four), `minus8` eight times that: what 4-bit weights owe for being stored with 8 added. They fit: 16 quants
/// of at most 127 times 8 are 16,256.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Meta {
    /// The block's scale in units of its row: a whole number.
    pub(crate) multiplier: f32,
    /// The same, twice.
    pub(crate) multipliers: [i16; 2],
    /// Multiplier times the sum of the quants, rounded once.
    pub(crate) sum: f32,
    pub(crate) minus: [i16; 2],
    pub(crate) minus8: [i16; 2],
    /// Negated sums of the quants of each half of the block.
    pub(crate) minus_halves: [i16; 2],
}

/// Rows of activations, quantised in blocks of [`BLOCK`]. Made once a step and read by every thread.
///
/// Of a row, `x` is about `unit * multiplier * q`, with one unit a row, `max |x of the row| / (127 * 32767)`, and one
/// multiplier a block: a whole number from 1 to 32,767, at most one more than it takes for `unit * multiplier * 127` to
/// reach the largest `|x|` of the block. `q` is `x / (unit * multiplier)` rounded to the nearest integer, even on a tie;
/// so `|x - unit * multiplier * q| <= 0.504 * unit * multiplier`. A row that holds a NaN or an infinity makes all its outputs
/// NaN.
#[derive(Default)]
pub struct Activations {
    rows: usize,
    inputs: usize,
    quants: Bytes,
    meta: Vec<Meta>,
    units: Vec<f32>,
}

impl Activations {
    /// Sets the shape to `rows` rows of `inputs` floats. Memory is reused; only a larger shape allocates.
    pub fn reshape(&mut self, rows: usize, inputs: usize) -> Quantizer<'_> {
        let blocks = inputs.div_ceil(BLOCK);
        self.rows = rows;
        self.inputs = inputs;
        self.quants.resize(rows * blocks * BLOCK);
        self.meta.resize(rows * blocks, Meta::default());
        self.units.resize(rows, 0.0);
        let (quants, meta) = (self.quants.as_mut_ptr().cast(), self.meta.as_mut_ptr());
        Quantizer { rows, inputs, quants, meta, units: self.units.as_mut_ptr(), filled: self, borrow: PhantomData }
    }

    /// Quantises all of `x`, `[rows, inputs]`, on this thread.
    pub fn quantize(&mut self, level: Level, x: &[f32], inputs: usize) {
        let rows = x.len().checked_div(inputs).unwrap_or(0);
        let quantizer = self.reshape(rows, inputs);
        // SAFETY: one thread.
        unsafe { quantizer.rows(level, x, 0..rows) };
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Floats of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn panel(&self, index: usize) -> Panel {
        let begin = index * PANEL;
        let rows = PANEL.min(self.rows - begin);
        let blocks = self.inputs.div_ceil(BLOCK);
        // SAFETY: `begin < rows` (else the subtraction above fails), so all begin within what `reshape` made room for.
        unsafe {
            Panel {
                begin,
                rows,
                quants: self.quants.as_ptr().cast::<i8>().add(begin * blocks * BLOCK),
                meta: self.meta.as_ptr().add(begin * blocks),
                units: self.units.as_ptr().add(begin),
            }
        }
    }
}

/// The quantised rows `begin..begin + rows`.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) begin: usize,
    pub(crate) rows: usize,
    pub(crate) quants: *const i8,
    pub(crate) meta: *const Meta,
    pub(crate) units: *const f32,
}

/// Fills [`Activations`], any rows from any thread.
pub struct Quantizer<'a> {
    rows: usize,
    inputs: usize,
    quants: *mut i8,
    meta: *mut Meta,
    units: *mut f32,
    filled: *const Activations,
    borrow: PhantomData<&'a mut Activations>,
}

// SAFETY: a view of exclusively borrowed memory; `rows` says who may write where.
unsafe impl Send for Quantizer<'_> {}
// SAFETY: as above.
unsafe impl Sync for Quantizer<'_> {}

impl Quantizer<'_> {
    /// Quantises rows of `x`, `[rows, inputs]`.
    ///
    /// # Panics
    /// `x` is too short, there are no such rows, or the CPU has not the level.
    ///
    /// # Safety
    /// No other thread fills the same rows at the same time.
    pub unsafe fn rows(&self, level: Level, x: &[f32], rows: Range<usize>) {
        assert!(x.len() >= self.rows * self.inputs, "{} floats for {} x {}", x.len(), self.rows, self.inputs);
        self.check(level, &rows);
        for row in rows {
            // SAFETY: the row is this thread's by the caller's promise, and was checked.
            unsafe { self.row(level, row, &x[row * self.inputs..][..self.inputs]) };
        }
    }

    /// Lets `fill` write each of some rows (its number, and where it goes: a row's worth of `scratch`) and quantises it
    /// while it is near.
    ///
    /// # Panics
    /// As [`Quantizer::rows`]; or `scratch` has not the length of a row.
    ///
    /// # Safety
    /// No other thread fills the same rows at the same time.
    pub unsafe fn rows_with(
        &self,
        level: Level,
        scratch: &mut [f32],
        rows: Range<usize>,
        mut fill: impl FnMut(usize, &mut [f32]),
    ) {
        assert!(scratch.len() == self.inputs, "{} floats for rows of {}", scratch.len(), self.inputs);
        self.check(level, &rows);
        for row in rows {
            fill(row, scratch);
            // SAFETY: the row is this thread's by the caller's promise, and was checked.
            unsafe { self.row(level, row, scratch) };
        }
    }

    /// Quantises `x` as row `row`.
    ///
    /// # Panics
    /// As [`Quantizer::rows`]; or `x` has not the length of a row.
    ///
    /// # Safety
    /// No other thread fills the same row at the same time.
    pub(crate) unsafe fn one(&self, level: Level, row: usize, x: &[f32]) {
        assert!(x.len() == self.inputs, "{} floats for rows of {}", x.len(), self.inputs);
        self.check(level, &(row..row + 1));
        // SAFETY: the row is this thread's by the caller's promise, and was checked.
        unsafe { self.row(level, row, x) };
    }

    /// The quantised activations.
    ///
    /// # Safety
    /// All rows were filled, by threads that are known to be done; no thread fills any more.
    pub unsafe fn filled(&self) -> &Activations {
        // SAFETY: borrowed exclusively for as long as the quantizer lives, which by the caller's promise does not write.
        unsafe { &*self.filled }
    }

    fn check(&self, level: Level, rows: &Range<usize>) {
        assert!(rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(level.is_available(), "this CPU has no {level:?}");
    }

    unsafe fn row(&self, level: Level, row: usize, x: &[f32]) {
        let begin = row - row % PANEL;
        let panel_rows = PANEL.min(self.rows - begin);
        let blocks = self.inputs.div_ceil(BLOCK);
        let first = begin * blocks + row - begin;
        // SAFETY: the row is this thread's and was checked; `reshape` made room for all of its panel's blocks, of which
        // every `panel_rows`th is the row's. The level was checked.
        unsafe {
            let cells =
                Cells { quants: self.quants.add(first * BLOCK), meta: self.meta.add(first), stride: panel_rows };
            *self.units.add(row) = quantize(level, x, cells);
        }
    }
}

/// The blocks of one row of a panel.
#[derive(Clone, Copy)]
struct Cells {
    quants: *mut i8,
    meta: *mut Meta,
    /// Blocks from one of the row's to its next.
    stride: usize,
}

impl Cells {
    /// Block `index` of the row.
    ///
    /// # Safety
    /// There is one, and nobody else uses it.
    unsafe fn get<'a>(self, index: usize) -> (&'a mut [i8; BLOCK], &'a mut Meta) {
        let at = index * self.stride;
        // SAFETY: the caller's promise.
        unsafe { (&mut *self.quants.add(at * BLOCK).cast::<[i8; BLOCK]>(), &mut *self.meta.add(at)) }
    }
}

/// Quantises a row; returns its unit.
///
/// # Safety
/// There are as many cells as blocks in `x`, and nobody else uses them; the CPU has the level.
unsafe fn quantize(level: Level, x: &[f32], cells: Cells) -> f32 {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(x: &[f32], cells: Cells) -> f32 {
        // SAFETY: passed on.
        unsafe { quantize_row(x, cells) }
    }
    // SAFETY: passed on.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni | Level::Avx512Vnni => avx2(x, cells),
            _ => quantize_row(x, cells),
        }
    }
}

#[inline(always)]
unsafe fn quantize_row(x: &[f32], cells: Cells) -> f32 {
    let largest = largest(x);
    // Below this the inverse of a unit overflows; such a row is zero for all purposes.
    if !largest.is_finite() || largest < f32::MIN_POSITIVE * 16_777_216.0 {
        for index in 0..x.len().div_ceil(BLOCK) {
            // SAFETY: a cell of the row.
            let (quants, meta) = unsafe { cells.get(index) };
            (*quants, *meta) = ([0; BLOCK], Meta::default());
        }
        return if largest.is_finite() { 0.0 } else { f32::NAN };
    }
    let unit = largest / (127.0 * MULTIPLIER_MAX);
    let units = MULTIPLIER_MAX / largest;
    let (whole, rest) = x.as_chunks::<BLOCK>();
    for (index, block) in whole.iter().enumerate() {
        // SAFETY: a cell of the row.
        let (quants, meta) = unsafe { cells.get(index) };
        *meta = quantize_block(block, unit, units, quants);
    }
    if !rest.is_empty() {
        let mut block = [0.0; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        // SAFETY: a cell of the row.
        let (quants, meta) = unsafe { cells.get(whole.len()) };
        *meta = quantize_block(&block, unit, units, quants);
    }
    unit
}

/// Largest magnitude; a NaN counts as larger than all.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    // Positive floats are ordered as their bits are, and so are NaNs above infinity.
    let mut largest = [0u32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for part in whole {
        for (most, x) in largest.iter_mut().zip(part) {
            *most = (*most).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    for (most, x) in largest.iter_mut().zip(rest) {
        *most = (*most).max(x.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(largest.iter().copied().fold(0, u32::max))
}

/// `units` is the number of units in the largest quant's scale, by the largest number. The same for every instruction set:
/// all steps are exact or rounded once, so the compiler may use any vectors.
#[inline(always)]
fn quantize_block(x: &[f32; BLOCK], unit: f32, units: f32, quants: &mut [i8; BLOCK]) -> Meta {
    let enough = nearest(largest(x).mul_add(units, 0.5)) as f32;
    let multiplier = if enough < 1.0 { 1.0 } else { enough };
    let multiplier = if multiplier > MULTIPLIER_MAX { MULTIPLIER_MAX } else { multiplier };
    let inverse = 1.0 / (unit * multiplier);
    // Sums of the four eights, by the place within an eight.
    let mut sums = [[0i32; 8]; 4];
    let eights = quants.as_chunks_mut::<8>().0.iter_mut().zip(x.as_chunks::<8>().0);
    for ((q8, x8), sums) in eights.zip(&mut sums) {
        *sums = x8.map(|x| nearest(x * inverse));
        *q8 = sums.map(|q| q as i8);
    }
    let [first, second] = [0, 2].map(|eight| array::from_fn::<i32, 8, _>(|i| sums[eight][i] + sums[eight + 1][i]));
    let sums: [i32; 8] = array::from_fn(|i| first[i] + second[i]);
    let halves = [sums[0] + sums[1] + sums[4] + sums[5], sums[2] + sums[3] + sums[6] + sums[7]];
    Meta {
        multiplier,
        multipliers: [nearest(multiplier) as i16; 2],
        sum: multiplier * (halves[0] + halves[1]) as f32,
        minus: halves.map(|half| -half as i16),
        minus8: halves.map(|half| (-8 * half) as i16),
        minus_halves: [first, second].map(|half| -half.iter().sum::<i32>() as i16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row's quants times their scales, and the scales.
    fn back(row: &Activations) -> (Vec<f32>, Vec<f32>) {
        let scales: Vec<f32> = row.meta.iter().map(|meta| meta.multiplier * row.units[0]).collect();
        let quants = row.quants.as_slice()[..scales.len() * BLOCK].iter().map(|&q| f32::from(q.cast_signed()));
        (quants.enumerate().map(|(i, q)| q * scales[i / BLOCK]).collect(), scales)
    }

    #[test]
    fn quants_are_within_half_a_scale_and_sums_are_theirs() {
        let mut x: Vec<f32> = (0..100).map(|i| ((i * 37 % 64) as f32 - 31.0) * 0.37).collect();
        // A block much smaller than its row, and one that is nothing beside it.
        x[32..64].iter_mut().for_each(|x| *x *= 1e-3);
        x[64..96].iter_mut().for_each(|x| *x *= 1e-9);
        for len in [100, 96, 63, 33, 1] {
            let mut row = Activations::default();
            row.quantize(Level::Portable, &x[..len], len);
            let (values, scales) = back(&row);
            for (i, x) in x[..len].iter().enumerate() {
                assert!((values[i] - x).abs() <= 0.504 * scales[i / BLOCK], "{i}: {} for {x}", values[i]);
            }
            assert!(values[len..].iter().all(|&x| x == 0.0));
            for (meta, quants) in row.meta.iter().zip(row.quants.as_slice().chunks(BLOCK)) {
                let half = |a: usize| -> i32 {
                    let quants = quants.iter().enumerate().filter(|(i, _)| i % 4 / 2 == a);
                    quants.map(|(_, q)| i32::from(q.cast_signed())).sum()
                };
                assert_eq!(meta.minus.map(i32::from), [-half(0), -half(1)]);
                assert_eq!(meta.minus8.map(i32::from), [-8 * half(0), -8 * half(1)]);
                assert_eq!(meta.sum, meta.multiplier * (half(0) + half(1)) as f32);
                let sum = |quants: &[u8]| quants.iter().map(|q| i32::from(q.cast_signed())).sum::<i32>();
                assert_eq!(meta.minus_halves.map(i32::from), [-sum(&quants[..16]), -sum(&quants[16..])]);
                assert_eq!(meta.multipliers.map(f32::from), [meta.multiplier; 2]);
            }
        }
    }

    #[test]
    fn rows_that_cannot_be_scaled_are_zero_or_nan() {
        let mut row = Activations::default();
        row.quantize(Level::Portable, &[1e-36; 40], 40);
        assert_eq!(row.units, [0.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 40];
            x[7] = bad;
            row.quantize(Level::Portable, &x, 40);
            assert!(row.units[0].is_nan());
            assert!(row.quants.as_slice().iter().all(|&q| q == 0));
        }
    }

    #[test]
    fn every_instruction_set_quantizes_alike() {
        let x: Vec<f32> = (0..13 * 100).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 77.0).collect();
        let mut expected = Activations::default();
        expected.quantize(Level::Portable, &x, 100);
        for level in Level::available() {
            let mut got = Activations::default();
            got.quantize(level, &x, 100);
            assert_eq!(format!("{:?} {:?}", got.meta, got.units), format!("{:?} {:?}", expected.meta, expected.units));
            assert_eq!(got.quants.as_slice()[..13 * 128], expected.quants.as_slice()[..13 * 128]);
        }
    }
}
