//! Weights as blocks of the kernels' formats: what a file's own quantisation becomes without a second search.

use std::borrow::Cow;

use slm_kernels::{Block, Format};

use super::quantized::Levels;
use crate::gguf::TensorType;

/// How well a format holds a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    /// It has no room for its levels, or other groups.
    Not,
    /// Scales or minima are rounded to f16.
    Nearly,
    Exactly,
}

/// A quantised weight of a file.
#[derive(Debug)]
pub(crate) enum Stored<'a> {
    /// Blocks of a GGUF file that a format of the kernels has.
    Gguf {
        format: Format,
        bytes: Cow<'a, [u8]>,
        shape: [usize; 2],
    },
    Levels(Levels),
}

/// Larger scales overflow f16 when eight times as large.
const SCALE_MAX: f32 = 8188.0;

impl<'a> Stored<'a> {
    /// A tensor of a GGUF file; `None` for types that no format holds.
    pub(super) fn gguf(kind: TensorType, bytes: Cow<'a, [u8]>, shape: [usize; 2]) -> Option<Self> {
        let format = match kind {
            TensorType::Q4_0 => Format::Q4Scale32,
            TensorType::Q4_1 => Format::Q4Min32,
            TensorType::Q5_0 => Format::Q6Scale32,
            TensorType::Q8_0 => Format::Q8Scale32,
            TensorType::Q4_K => Format::Q4K,
            TensorType::Q5_K => Format::Q5K,
            TensorType::Q6_K => Format::Q6K,
            _ => return None,
        };
        Some(Self::Gguf { format, bytes, shape })
    }

    /// The format that has the very blocks of a GGUF file.
    pub(crate) fn own_format(&self) -> Option<Format> {
        match self {
            Self::Gguf { format, .. } => Some(*format),
            Self::Levels(_) => None,
        }
    }

    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::Gguf { shape, .. } => shape[0],
            Self::Levels(levels) => levels.outputs(),
        }
    }

    pub(crate) fn inputs(&self) -> usize {
        match self {
            Self::Gguf { shape, .. } => shape[1],
            Self::Levels(levels) => levels.inputs(),
        }
    }

    pub(crate) fn fit(&self, format: Format) -> Fit {
        match self {
            Self::Levels(levels) => levels.fit(format),
            Self::Gguf { format: own, .. } if *own == format => Fit::Exactly,
            Self::Gguf { format: Format::Q4Scale32, bytes, .. } => {
                let mut blocks = bytes.as_chunks().0.iter().map(Block::from_q4_0);
                let fits = match format {
                    Format::Q6Scale32 | Format::Q8Scale32 => true,
                    Format::Q4Min32 => blocks.all(|block| block.scale.abs() <= SCALE_MAX),
                    Format::Q4Scale32 | Format::Q4K | Format::Q5K | Format::Q6K => false,
                };
                if fits { Fit::Exactly } else { Fit::Not }
            }
            Self::Gguf { .. } => Fit::Not,
        }
    }

    /// Block `index` of row `row`, for a format that holds the weight.
    pub(crate) fn block(&self, row: usize, index: usize, format: Format) -> Block {
        let (own, bytes, at) = match self {
            Self::Levels(levels) => return levels.block(row, index, format),
            Self::Gguf { format, bytes, shape } => (*format, bytes, row * (shape[1] / slm_kernels::BLOCK) + index),
        };
        let (whole, sub) = (at / Block::K_BLOCKS, at % Block::K_BLOCKS);
        let block = match own {
            Format::Q4Scale32 => Block::from_q4_0(&bytes.as_chunks().0[at]),
            Format::Q4Min32 => Block::from_q4_1(&bytes.as_chunks().0[at]),
            Format::Q6Scale32 => Block::from_q5_0(&bytes.as_chunks().0[at]),
            Format::Q8Scale32 => Block::from_q8_0(&bytes.as_chunks().0[at]),
            Format::Q4K => Block::from_q4_k(&bytes.as_chunks().0[whole], sub),
            Format::Q5K => Block::from_q5_k(&bytes.as_chunks().0[whole], sub),
            Format::Q6K => Block::from_q6_k(&bytes.as_chunks().0[whole], sub),
        };
        match (own, format) {
            (Format::Q4Scale32, Format::Q4Min32) => Block { offset: -8.0 * block.scale, ..block },
            // From a middle of 8 to one of 32, or of 128.
            (Format::Q4Scale32, Format::Q6Scale32) => Block { quants: block.quants.map(|quant| quant + 24), ..block },
            (Format::Q4Scale32, Format::Q8Scale32) => Block { quants: block.quants.map(|quant| quant + 120), ..block },
            _ => block,
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    const FORMATS: [Format; 3] = [Format::Q4Scale32, Format::Q4Min32, Format::Q8Scale32];
    const K: [Format; 3] = [Format::Q4K, Format::Q5K, Format::Q6K];

    #[test]
    fn a_block_around_its_middle_is_the_same_in_every_format() {
        let mut bytes = f16::from_f32(0.3).to_le_bytes().to_vec();
        bytes.extend((0..16u8).map(|i| i | (15 - i) << 4));
        let stored = Stored::gguf(TensorType::Q4_0, bytes.into(), [1, 32]).unwrap();
        assert_eq!((stored.outputs(), stored.inputs()), (1, 32));
        let weights = |format: Format| {
            assert_eq!(stored.fit(format), Fit::Exactly);
            let packed = slm_kernels::Packed::pack(format, 32, 1, |row, index| stored.block(row, index, format));
            let mut column = [0.0; 32];
            packed.weights().column(0, &mut column);
            column
        };
        let [scale, min, eight] = FORMATS.map(weights);
        assert_eq!((scale, scale), (min, eight));
        assert_eq!(scale, weights(Format::Q6Scale32));
        assert_eq!(K.map(|format| stored.fit(format)), [Fit::Not; 3]);
    }

    #[test]
    fn types_without_a_format_are_not_stored_and_large_scales_have_no_minimum() {
        assert!(Stored::gguf(TensorType::Q5_1, Cow::Borrowed(&[]), [0, 0]).is_none());
        let mut bytes = [0; 18];
        bytes[..2].copy_from_slice(&f16::from_f32(9000.0).to_le_bytes());
        let stored = Stored::gguf(TensorType::Q4_0, Cow::Borrowed(&bytes), [1, 32]).unwrap();
        assert_eq!(FORMATS.map(|format| stored.fit(format)), [Fit::Exactly, Fit::Not, Fit::Exactly]);
        let stored = Stored::gguf(TensorType::Q8_0, Cow::Borrowed(&[0; 34]), [1, 32]).unwrap();
        assert_eq!(FORMATS.map(|format| stored.fit(format)), [Fit::Not, Fit::Not, Fit::Exactly]);
    }
}
