//! Memory layout of an adapter for one fused projection.
//!
//! Matrices are contiguous, each aligned to a cache line, in memory of the caller: an adapter of a hundred projections
//! is one allocation.

use std::ops::Range;

use super::{Adapter, Matrices, exact, int8};
use crate::{memory::LINE, simd::WIDTH};

/// A module of a fused projection that an adapter changes.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// Rows of A.
    pub rank: usize,
    /// First output column.
    pub column_begin: usize,
    /// Number of output columns.
    pub columns: usize,
}

/// A trained pair: its contribution is the product of both matrices, times the factor.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// `[rank, inputs]`.
    pub a: &'a [f32],
    /// `[columns, rank]`.
    pub b: &'a [f32],
    /// The factor.
    pub factor: f32,
}

/// A factor that makes weights overflow an f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactorError {
    /// Index of the pair.
    pub pair: usize,
}

/// Shape and layout of an adapter's matrices for one fused projection.
#[derive(Debug)]
pub struct Layout {
    rank: usize,
    inputs: usize,
    outputs: usize,
    in_8_bits: bool,
    parts: Vec<Part>,
    /// Byte ranges of A, B and scales.
    a: Range<usize>,
    b: Range<usize>,
    scales: Range<usize>,
}

/// One module's B within a fused projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// First row of its A.
    pub(super) rank_begin: usize,
    /// Number of rows of its A.
    pub(super) rank: usize,
    /// First output column.
    pub(super) column_begin: usize,
    /// Number of output columns.
    pub(super) columns: usize,
    /// Start of its B, in elements.
    pub(super) b_begin: usize,
    /// Elements of B from one tile to the next.
    pub(super) tile: usize,
}

impl Part {
    /// End of its B, in elements.
    pub(super) fn b_end(&self) -> usize {
        self.b_begin + self.columns.div_ceil(WIDTH) * self.tile
    }

    /// The part of `columns` that belongs to it, relative to its first.
    pub(super) fn within(&self, columns: &Range<usize>) -> Option<Range<usize>> {
        let begin = columns.start.max(self.column_begin);
        let end = columns.end.min(self.column_begin + self.columns);
        (begin < end).then(|| begin - self.column_begin..end - self.column_begin)
    }
}

impl Layout {
    /// A layout in 32-bit floats.
    ///
    /// # Panics
    /// A module's columns go beyond the outputs.
    pub fn in_32_bits(inputs: usize, outputs: usize, modules: &[Module]) -> Self {
        let parts = parts(outputs, modules, |rank| rank * WIDTH);
        let rank: usize = parts.iter().map(|part| part.rank).sum();
        let a = 0..rank * inputs * size_of::<f32>();
        let b = after(&a, parts.last().map_or(0, Part::b_end) * size_of::<f32>());
        let scales = after(&b, 0);
        Self { rank, inputs, outputs, in_8_bits: false, parts, a, b, scales }
    }

    /// A layout in 8 bits: A in blocks of 32 inputs with a scale each, B with a scale for each rank.
    ///
    /// # Panics
    /// As [`Layout::in_32_bits`].
    pub fn in_8_bits(inputs: usize, outputs: usize, modules: &[Module]) -> Self {
        let parts = parts(outputs, modules, |rank| rank.next_multiple_of(2) * WIDTH);
        let rank = parts.iter().map(|part| part.rank).sum();
        let a = 0..int8::bytes_of_a(inputs, rank);
        let b = after(&a, parts.last().map_or(0, Part::b_end));
        let scales = after(&b, rank * size_of::<f32>());
        Self { rank, inputs, outputs, in_8_bits: true, parts, a, b, scales }
    }

    /// Bytes of the matrices: a whole number of cache lines.
    pub fn bytes(&self) -> usize {
        self.scales.end.next_multiple_of(LINE)
    }

    /// Packs the pair of each module into `memory`, which is zeroed.
    ///
    /// # Errors
    /// The factor of a pair makes its weights overflow.
    ///
    /// # Panics
    /// The number or shape of pairs differs from the modules, or the memory has another size or is not aligned for f32.
    pub fn pack(&self, pairs: &[Pair<'_>], memory: &mut [u8]) -> Result<(), FactorError> {
        assert!(memory.len() == self.bytes(), "{} bytes for {}", memory.len(), self.bytes());
        assert!(pairs.len() == self.parts.len(), "{} pairs for {} modules", pairs.len(), self.parts.len());
        for (Pair { a, b, .. }, part) in pairs.iter().zip(&self.parts) {
            let fit = a.len() == part.rank * self.inputs && b.len() == part.columns * part.rank;
            assert!(fit, "A has {}, B {} elements for {part:?} of {} inputs", a.len(), b.len(), self.inputs);
        }
        let (a, rest) = memory.split_at_mut(self.b.start);
        let (b, scales) = rest.split_at_mut(self.scales.start - self.b.start);
        let (a, b, scales) = (&mut a[..self.a.len()], &mut b[..self.b.len()], &mut scales[..self.scales.len()]);
        if self.in_8_bits {
            int8::pack(self.inputs, &self.parts, pairs, a, b, bytemuck::cast_slice_mut(scales))
        } else {
            exact::pack(&self.parts, pairs, bytemuck::cast_slice_mut(a), bytemuck::cast_slice_mut(b))
        }
    }

    /// The adapter in `memory`, as packed by [`Layout::pack`]. Memory aligned to 64 bytes is read fastest.
    ///
    /// # Panics
    /// The memory has another size, or is not aligned for f32.
    pub fn adapter<'a>(&'a self, memory: &'a [u8]) -> Adapter<'a> {
        assert!(memory.len() == self.bytes(), "{} bytes for {}", memory.len(), self.bytes());
        let Self { rank, inputs, outputs, ref parts, .. } = *self;
        let [a, b, scales] = [&self.a, &self.b, &self.scales].map(|range| &memory[range.clone()]);
        let matrices = if self.in_8_bits {
            Matrices::Int8 { a: int8::weights_of_a(inputs, rank, a), b, scales: bytemuck::cast_slice(scales) }
        } else {
            Matrices::F32 { a: bytemuck::cast_slice(a), b: bytemuck::cast_slice(b) }
        };
        Adapter { rank, inputs, outputs, parts, matrices }
    }
}

/// The next `len` bytes, from a cache line on.
fn after(before: &Range<usize>, len: usize) -> Range<usize> {
    let begin = before.end.next_multiple_of(LINE);
    begin..begin + len
}

/// Modules one behind the other; `tile` is the elements of a tile of B, by its rank.
fn parts(outputs: usize, modules: &[Module], tile: impl Fn(usize) -> usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(modules.len());
    for &Module { rank, column_begin, columns } in modules {
        assert!(column_begin + columns <= outputs, "columns {column_begin}+{columns} of {outputs}");
        let (rank_begin, b_begin) = parts.last().map_or((0, 0), |last| (last.rank_begin + last.rank, last.b_end()));
        parts.push(Part { rank_begin, rank, column_begin, columns, b_begin, tile: tile(rank) });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two modules of 3 inputs, and a factor for the second.
    fn pack(layout: fn(usize, usize, &[Module]) -> Layout, factor: f32) -> Result<(), FactorError> {
        let modules =
            [(2, 0, 17), (1, 20, 5)].map(|(rank, column_begin, columns)| Module { rank, column_begin, columns });
        let layout = layout(3, 25, &modules);
        let matrices = modules.map(|module| (vec![1e30; module.rank * 3], vec![-4.0; module.columns * module.rank]));
        let pairs = [(0, 1.0), (1, factor)].map(|(i, factor)| Pair { a: &matrices[i].0, b: &matrices[i].1, factor });
        let mut memory = vec![0f32; layout.bytes() / size_of::<f32>()];
        layout.pack(&pairs, bytemuck::cast_slice_mut(&mut memory))
    }

    #[test]
    fn a_factor_beyond_the_range_is_refused() {
        for layout in [Layout::in_32_bits, Layout::in_8_bits] {
            assert_eq!(pack(layout, 0.5), Ok(()));
            assert_eq!(pack(layout, f32::MAX / 2.0), Err(FactorError { pair: 1 }));
        }
    }
}
