//! Weights in blocks around the middle of their levels, as `com.microsoft.MatMulNBits` takes them: 4 or 8 bits, one scale for
//! 32 weights of a row, no zero point.

use half::f16;
use slm_kernels::{BLOCK, Block, Format};

use crate::checkpoint::{Checkpoint, CheckpointError, Fit};

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Four,
    Eight,
}

impl Width {
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Bytes of so many weights.
    pub(crate) fn bytes(self, weights: usize) -> usize {
        weights * self.bits() / 8
    }

    /// The kernels' format with the same levels.
    fn format(self) -> Format {
        match self {
            Self::Four => Format::Q4Scale32,
            Self::Eight => Format::Q8Scale32,
        }
    }
}

/// Blocks of a matrix, row by row.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Levels; with 4 bits the earlier of two weights in the low half of a byte.
    pub(crate) quants: Vec<u8>,
    /// A scale for each block.
    pub(crate) scales: Vec<f32>,
}

/// Whether the first linear layer of `checkpoint` has 4 bits that are taken over exactly.
pub(crate) fn holds_first(checkpoint: &Checkpoint) -> bool {
    let weight = checkpoint.architecture().path((0, 0)).map(|path| format!("{path}.weight"));
    let stored = weight.as_deref().and_then(|name| checkpoint.stored(name));
    stored.is_some_and(|stored| stored.fit(Format::Q4Scale32) == Fit::Exactly)
}

/// The tensors of these names under one another: the file's own levels where it has such, else rounded.
pub(crate) fn in_blocks(checkpoint: &Checkpoint, names: &[String], width: Width) -> Result<Blocks, CheckpointError> {
    let mut blocks = Blocks::default();
    for name in names {
        let stored = checkpoint.stored(name).filter(|stored| stored.fit(width.format()) > Fit::Not);
        if let Some(stored) = stored {
            for row in 0..stored.outputs() {
                for index in 0..stored.inputs().div_ceil(BLOCK) {
                    blocks.push(&stored.block(row, index, width.format()), width);
                }
            }
            continue;
        }
        let tensor = checkpoint.tensor(name)?;
        for row in tensor.data.chunks(tensor.shape[1]) {
            for weights in row.chunks(BLOCK) {
                let block = match width {
                    Width::Four => in_4_bits(weights),
                    Width::Eight => Block::in_8_bits(weights, 1.0),
                };
                blocks.push(&block, width);
            }
        }
    }
    Ok(blocks)
}

impl Blocks {
    /// The same matrix of 4-bit levels, `[outputs, inputs]`, as `DequantizeLinear` takes it: transposed, with signed levels,
    /// two a byte, and without the padding of rows.
    pub(crate) fn in_columns(&self, outputs: usize, inputs: usize) -> Self {
        let per_row = inputs.div_ceil(BLOCK);
        let mut columns =
            Self { quants: vec![0; (outputs * inputs).div_ceil(2)], scales: vec![0.0; outputs * per_row] };
        for row in 0..outputs {
            for column in 0..inputs {
                let byte = self.quants[(row * per_row * BLOCK + column) / 2];
                // A level of 4 bits around 8 is a signed one with its highest bit turned over.
                let level = (if column % 2 == 0 { byte & 15 } else { byte >> 4 }) ^ 8;
                let at = column * outputs + row;
                columns.quants[at / 2] |= level << (at % 2 * 4);
            }
            for block in 0..per_row {
                columns.scales[block * outputs + row] = self.scales[row * per_row + block];
            }
        }
        columns
    }

    fn push(&mut self, block: &Block, width: Width) {
        self.scales.push(block.scale);
        match width {
            Width::Eight => self.quants.extend_from_slice(&block.quants),
            Width::Four => {
                self.quants.extend(block.quants.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4))
            }
        }
    }
}

/// Candidate scales: from the one that gives the largest weight the outermost level to smaller steps.
const SCALES: usize = 9;

/// At most [`BLOCK`] weights in levels of -8 to 7. Of several scales the one with the least squared error, measured with the
/// scale as stored.
fn in_4_bits(weights: &[f32]) -> Block {
    let largest = weights.iter().copied().fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
    let mut best = (f32::INFINITY, Block::new(0.0, 0.0, [8; BLOCK]));
    for index in 0..SCALES {
        // The largest weight gets a level from -9 (which is cut to -8) to -7.
        let scale = f16::from_f32(largest / -(9.0 - 0.25 * index as f32)).to_f32();
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let (mut quants, mut error) = ([8; BLOCK], 0.0);
        for (quant, weight) in quants.iter_mut().zip(weights) {
            let level = (weight * inverse).round().clamp(-8.0, 7.0);
            *quant = (level + 8.0) as u8;
            error += (level * scale - weight).powi(2);
        }
        if error < best.0 {
            best = (error, Block::new(scale, 0.0, quants));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_four_bits_that_exist_are_found_again() {
        let weights: Vec<f32> = (0..32).map(|i| 0.125 * ((i * 7 % 16) as f32 - 8.0)).collect();
        let block = in_4_bits(&weights);
        let back: Vec<f32> = block.quants.iter().map(|&quant| block.scale * (f32::from(quant) - 8.0)).collect();
        assert_eq!(back, weights);
    }

    #[test]
    fn no_weight_is_further_away_than_a_step() {
        let weights: Vec<f32> = (0..29).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let block = in_4_bits(&weights);
        for (quant, weight) in block.quants.iter().zip(&weights) {
            assert!((block.scale * (f32::from(*quant) - 8.0) - weight).abs() <= block.scale.abs(), "{weight}");
        }
        assert_eq!(block.quants[29..], [8; 3], "padding is zero");
        assert_eq!(in_4_bits(&[0.0; 32]).scale, 0.0);
    }

    #[test]
    fn columns_have_the_levels_and_scales_of_rows() {
        let (outputs, inputs) = (3, 34);
        let level = |row: usize, column: usize| ((row * 5 + column * 3) % 16) as u8;
        let mut blocks = Blocks::default();
        for (row, block) in (0..outputs).flat_map(|row| [(row, 0), (row, 1)]) {
            let mut quants = [8; BLOCK];
            (block * BLOCK..inputs.min((block + 1) * BLOCK))
                .for_each(|column| quants[column % BLOCK] = level(row, column));
            blocks.push(&Block::new((row * 2 + block) as f32, 0.0, quants), Width::Four);
        }
        let columns = blocks.in_columns(outputs, inputs);
        assert_eq!(columns.quants.len(), outputs * inputs / 2);
        for (row, column) in (0..outputs).flat_map(|row| (0..inputs).map(move |column| (row, column))) {
            let at = column * outputs + row;
            let signed = (columns.quants[at / 2] >> (at % 2 * 4) << 4) as i8 >> 4;
            assert_eq!(signed, level(row, column) as i8 - 8, "{row}, {column}");
        }
        assert_eq!(columns.scales, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    }

    #[test]
    fn the_earlier_weight_is_in_the_low_half() {
        let mut blocks = Blocks::default();
        let mut quants = [8; BLOCK];
        quants[0] = 1;
        blocks.push(&Block::new(0.5, 0.0, quants), Width::Four);
        assert_eq!((blocks.quants.len(), blocks.quants[0], blocks.scales[0]), (16, 0x81, 0.5));
    }
}
