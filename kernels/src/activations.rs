//! Activations in 8 bits: a scale per row and block, and the sums that stand in for the weights' offsets.
//!
//! Rows stand in panels of at most [`PANEL`], and a panel block by block: `[block][row][inputs of the block]`. So
//! whatever a kernel reads for one block lies side by side, at distances that are known when it is compiled, and a
//! panel of a wide matrix does not fall into few sets of the cache.
#![allow(unsafe_code)] // Rows are written by several threads; bounds are checked once per call.

use std::{marker::PhantomData, ops::Range};

use crate::{level::Level, memory::Bytes, rows::Rows};

/// Rows of a panel at most: the most rows that any kernel takes at once.
pub(crate) const PANEL: usize = 12;

/// What a kernel needs of one row in one block besides its quants.
///
/// `minus` are the negated sums of the quants that a 16-bit lane of `maddubs` meets (the first two and the last two
/// of each four), `minus8` eight times that: what 4-bit weights owe for being stored with 8 added. They fit: 32 quants
/// of at most 127 times 8 are 32,512.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Meta {
    pub(crate) scale: f32,
    /// Scale times the sum of the quants.
    pub(crate) scaled_sum: f32,
    pub(crate) minus: [i16; 2],
    pub(crate) minus8: [i16; 2],
}

/// Rows of activations, quantised for weights of one block size. Made once a step and read by every thread.
///
/// Within a block of a row, `x` is about `scale * q` with `scale = max |x| / 127` and `q = x / scale` rounded to
/// the nearest integer, even on a tie; so `|x - scale * q| <= 0.504 * scale`. A block that holds a NaN or an infinity
/// makes every output of its row NaN.
#[derive(Default)]
pub struct Activations {
    rows: usize,
    inputs: usize,
    block: usize,
    quants: Bytes,
    meta: Vec<Meta>,
}

impl Activations {
    /// Takes the shape of `rows` rows of `inputs` floats for weights with blocks of `block` inputs (32 or 64). Keeps
    /// the memory it had: only a larger shape than any before allocates.
    pub fn reshape(&mut self, rows: usize, inputs: usize, block: usize) -> Quantizer<'_> {
        assert!(block == 32 || block == 64, "blocks of {block} inputs; 32 and 64 are known");
        let blocks = inputs.div_ceil(block);
        self.rows = rows;
        self.inputs = inputs;
        self.block = block;
        self.quants.resize(rows * blocks * block);
        self.meta.resize(rows * blocks, Meta::default());
        let (quants, meta) = (self.quants.as_mut_ptr().cast(), self.meta.as_mut_ptr());
        Quantizer { rows, inputs, block, quants, meta, filled: self, borrow: PhantomData }
    }

    /// Quantises all of `x`, `[rows, inputs]`, on this thread.
    pub fn quantize(&mut self, level: Level, x: &[f32], inputs: usize, block: usize) {
        let rows = x.len().checked_div(inputs).unwrap_or(0);
        let quantizer = self.reshape(rows, inputs, block);
        // SAFETY: one thread.
        unsafe { quantizer.rows(level, x, 0..rows) };
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Floats of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Inputs of a block.
    pub fn block(&self) -> usize {
        self.block
    }

    pub(crate) fn panel(&self, index: usize) -> Panel {
        let begin = index * PANEL;
        let rows = PANEL.min(self.rows - begin);
        let blocks = self.inputs.div_ceil(self.block);
        // SAFETY: `begin < rows` (else the subtraction above fails), so both begin within what `reshape` made room for.
        let (quants, meta) = unsafe {
            (self.quants.as_ptr().cast::<i8>().add(begin * blocks * self.block), self.meta.as_ptr().add(begin * blocks))
        };
        Panel { begin, rows, quants, meta }
    }
}

/// The quantised rows `begin..begin + rows`.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) begin: usize,
    pub(crate) rows: usize,
    pub(crate) quants: *const i8,
    pub(crate) meta: *const Meta,
}

/// Fills [`Activations`], any rows from any thread.
pub struct Quantizer<'a> {
    rows: usize,
    inputs: usize,
    block: usize,
    quants: *mut i8,
    meta: *mut Meta,
    filled: *const Activations,
    borrow: PhantomData<&'a mut Activations>,
}

// SAFETY: a view of exclusively borrowed memory; `rows` says who may write where.
unsafe impl Send for Quantizer<'_> {}
// SAFETY: as above.
unsafe impl Sync for Quantizer<'_> {}

impl Quantizer<'_> {
    /// Quantises some rows out of all of `x`, `[rows, inputs]`.
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

    /// Lets `fill` write each of some rows (its number, and where it goes in `kept`, which keeps it) and quantises it while
    /// it is near.
    ///
    /// # Panics
    /// As [`Quantizer::rows`].
    ///
    /// # Safety
    /// No other thread fills the same rows, or uses them in `kept`, at the same time.
    pub unsafe fn rows_with(
        &self,
        level: Level,
        kept: Rows<'_>,
        rows: Range<usize>,
        mut fill: impl FnMut(usize, &mut [f32]),
    ) {
        assert!(kept.width() == self.inputs, "rows of {} for inputs of {}", kept.width(), self.inputs);
        self.check(level, &rows);
        for row in rows {
            // SAFETY: the row is this thread's by the caller's promise, here and there, and was checked.
            unsafe {
                let x = std::slice::from_raw_parts_mut(kept.row(row), self.inputs);
                fill(row, x);
                self.row(level, row, x);
            }
        }
    }

    /// What was filled.
    ///
    /// # Safety
    /// All rows were, and the threads that did it are known to have done it; nobody fills any more.
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
        let blocks = self.inputs.div_ceil(self.block);
        for (index, part) in x.chunks(self.block).enumerate() {
            let at = begin * blocks + index * panel_rows + row - begin;
            // SAFETY: cell `at` is one of the row's, which is this thread's; `reshape` made room for all.
            let (quants, meta) = unsafe {
                (std::slice::from_raw_parts_mut(self.quants.add(at * self.block), self.block), &mut *self.meta.add(at))
            };
            *meta = quantize(level, part, quants);
        }
    }
}

/// Quantises one block of one row into as many bytes as a block has; `x` may be shorter.
fn quantize(level: Level, x: &[f32], quants: &mut [i8]) -> Meta {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(x: &[f32], quants: &mut [i8]) -> Meta {
        quantize_block(x, quants)
    }
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni | Level::Avx512Vnni => {
            // SAFETY: the level was checked by the methods of `Quantizer`.
            unsafe { avx2(x, quants) }
        }
        _ => quantize_block(x, quants),
    }
}

#[inline(always)]
fn quantize_block(x: &[f32], quants: &mut [i8]) -> Meta {
    let padded = |x: &[f32]| {
        let mut padded = [0.0; 64];
        padded[..x.len()].copy_from_slice(x);
        padded
    };
    if let Ok(quants) = <&mut [i8; 32]>::try_from(&mut *quants) {
        return match x.try_into() {
            Ok(x) => quantize_whole::<32>(x, quants),
            Err(_) => quantize_whole::<32>(padded(x).first_chunk().unwrap_or(&[0.0; 32]), quants),
        };
    }
    match quants.try_into() {
        Ok(quants) => match x.try_into() {
            Ok(x) => quantize_whole::<64>(x, quants),
            Err(_) => quantize_whole::<64>(&padded(x), quants),
        },
        Err(_) => Meta::default(),
    }
}

/// The same for every instruction set: all steps are exact or rounded once, so the compiler may use any vectors.
#[inline(always)]
fn quantize_whole<const N: usize>(x: &[f32; N], quants: &mut [i8; N]) -> Meta {
    // Positive floats are ordered as their bits are, and so are NaNs above infinity.
    let mut largest = [0u32; 16];
    for part in x.as_chunks::<16>().0 {
        for (most, x) in largest.iter_mut().zip(part) {
            *most = (*most).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let largest = f32::from_bits(largest.iter().copied().fold(0, u32::max));
    // Below this the inverse overflows; such a block is zero for all purposes.
    if largest < f32::MIN_POSITIVE * 128.0 {
        quants.fill(0);
        return Meta::default();
    }
    if !largest.is_finite() {
        quants.fill(0);
        return Meta { scale: f32::NAN, scaled_sum: f32::NAN, ..Meta::default() };
    }
    let inverse = 127.0 / largest;
    // Adding 1.5 * 2^23 leaves the nearest integer, even on a tie, in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    let mut sums = [0i32; 8];
    for (q8, x8) in quants.as_chunks_mut::<8>().0.iter_mut().zip(x.as_chunks::<8>().0) {
        let whole = x8.map(|x| (x * inverse + MAGIC).to_bits().cast_signed() - MAGIC.to_bits().cast_signed());
        for (sum, q) in sums.iter_mut().zip(whole) {
            *sum += q;
        }
        *q8 = whole.map(|q| q as i8);
    }
    let scale = largest / 127.0;
    let halves = [sums[0] + sums[1] + sums[4] + sums[5], sums[2] + sums[3] + sums[6] + sums[7]];
    Meta {
        scale,
        scaled_sum: scale * (halves[0] + halves[1]) as f32,
        minus: halves.map(|half| -half as i16),
        minus8: halves.map(|half| (-8 * half) as i16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quants_are_within_half_a_scale_and_sums_are_theirs() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0) * 0.37).collect();
        for len in [64, 63, 33, 1] {
            let mut quants = [1i8; 64];
            let meta = quantize_block(&x[..len], &mut quants);
            for (i, &q) in quants.iter().enumerate() {
                let x = if i < len { x[i] } else { 0.0 };
                assert!((f32::from(q) * meta.scale - x).abs() <= 0.504 * meta.scale, "{i}: {q} for {x}");
            }
            let half = |a: usize| -> i32 {
                quants.iter().enumerate().filter(|(i, _)| i % 4 / 2 == a).map(|(_, &q)| i32::from(q)).sum()
            };
            assert_eq!(meta.minus.map(i32::from), [-half(0), -half(1)]);
            assert_eq!(meta.minus8.map(i32::from), [-8 * half(0), -8 * half(1)]);
            assert_eq!(meta.scaled_sum, meta.scale * (half(0) + half(1)) as f32);
        }
    }

    #[test]
    fn blocks_that_cannot_be_scaled_are_zero_or_nan() {
        let mut quants = [1i8; 32];
        assert_eq!(quantize_block(&[1e-40; 32], &mut quants).scale, 0.0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 32];
            x[7] = bad;
            assert!(quantize_block(&x, &mut quants).scale.is_nan());
            assert_eq!(quants, [0; 32]);
        }
    }

    #[test]
    fn every_instruction_set_quantizes_alike() {
        let x: Vec<f32> = (0..13 * 100).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 77.0).collect();
        let mut expected = Activations::default();
        expected.quantize(Level::Portable, &x, 100, 32);
        for level in Level::available() {
            let mut got = Activations::default();
            got.quantize(level, &x, 100, 32);
            assert_eq!(format!("{:?}", got.meta), format!("{:?}", expected.meta));
            assert_eq!(got.quants.as_mut_slice()[..13 * 128], expected.quants.as_mut_slice()[..13 * 128]);
        }
    }
}
