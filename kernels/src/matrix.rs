//! A matrix in parts side by side, each in a format of its own: fused layers of a file that mixes types.

use std::ops::Range;

use crate::{
    format::{Format, TILE_COLUMNS},
    pack::Weights,
    source_error::SourceError,
};

/// Bound on the parts of a matrix: queries, keys and values.
pub const PARTS_MAX: usize = 3;

/// A matrix of one part or several. Each part but the last has whole tiles of [`TILE_COLUMNS`].
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    parts: [Option<Weights<'a>>; PARTS_MAX],
    inputs: usize,
    outputs: usize,
}

impl<'a> From<Weights<'a>> for Matrix<'a> {
    fn from(weights: Weights<'a>) -> Self {
        let parts = std::array::from_fn(|index| (index == 0).then_some(weights));
        Self { parts, inputs: weights.inputs(), outputs: weights.outputs() }
    }
}

impl<'a> Matrix<'a> {
    /// The parts of these formats and outputs, whose packed bytes follow each other in `bytes`.
    ///
    /// # Errors
    /// The bytes do not fit the shapes; or there are no parts, more than [`PARTS_MAX`], or broken tiles before the last.
    pub fn new(inputs: usize, parts: &[(Format, usize)], mut bytes: &'a [u8]) -> Result<Self, SourceError> {
        let Some((_, before)) = parts.split_last().filter(|_| parts.len() <= PARTS_MAX) else {
            return Err(SourceError::Parts { parts: parts.len(), max: PARTS_MAX });
        };
        if let Some((_, outputs)) = before.iter().find(|(_, outputs)| !outputs.is_multiple_of(TILE_COLUMNS)) {
            return Err(SourceError::Unaligned { outputs: *outputs, tile: TILE_COLUMNS });
        }
        let mut matrix = Self { parts: [None; PARTS_MAX], inputs, outputs: 0 };
        for (index, (format, outputs)) in parts.iter().enumerate() {
            let size = if index == before.len() { bytes.len() } else { format.packed_len(inputs, *outputs) };
            let (part, rest) = bytes.split_at_checked(size).ok_or(SourceError::Size {
                what: "packed bytes",
                got: bytes.len(),
                want: size,
            })?;
            matrix.parts[index] = Some(Weights::new(*format, inputs, *outputs, part)?);
            matrix.outputs += outputs;
            bytes = rest;
        }
        Ok(matrix)
    }

    /// Inputs of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs (columns) of all parts.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The parts, each with the columns that it has.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Range<usize>, Weights<'a>)> + use<'a> {
        self.parts.into_iter().flatten().scan(0, |end, weights| {
            let begin = *end;
            *end += weights.outputs();
            Some((begin..*end, weights))
        })
    }

    /// The weights of one column, dequantised: rounded once, to f32.
    ///
    /// # Panics
    /// There is no such column, or `out` has not [`inputs`](Self::inputs) floats.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        assert!(column < self.outputs, "column {column} of {}", self.outputs);
        if let Some((columns, weights)) = self.parts().find(|(columns, _)| columns.contains(&column)) {
            weights.column(column - columns.start, out);
        }
    }
}
