//! Weights that are whole numbers with a scale for each group of inputs, and their blocks for the kernels.

use half::f16;
use slm_kernels::{BLOCK, Block, Format};

use crate::checkpoint::Fit;

/// Relative error of a number that is rounded to f16, unless it is too small for f16's whole precision.
const HALF_ULP: f32 = 1.0 / 2048.0;

/// A matrix of levels: a weight is its level times the scale of its group.
#[derive(Debug)]
pub(crate) struct Levels {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// `[outputs, inputs]`, zero points subtracted.
    pub(super) levels: Vec<i16>,
    /// `[outputs, groups]`.
    pub(super) scales: Vec<f32>,
    /// Group of each input.
    pub(super) groups: Vec<u32>,
}

impl Levels {
    /// Weights, row by row: the product is rounded once, to f32.
    pub(super) fn values(&self) -> Vec<f32> {
        let groups = self.scales.len() / self.outputs.max(1);
        let mut values = Vec::with_capacity(self.levels.len());
        for (levels, scales) in self.levels.chunks(self.inputs.max(1)).zip(self.scales.chunks(groups.max(1))) {
            let weight = |(level, group): (&i16, &u32)| f32::from(*level) * scales[*group as usize];
            values.extend(levels.iter().zip(&self.groups).map(weight));
        }
        values
    }

    pub(in crate::checkpoint) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(in crate::checkpoint) fn inputs(&self) -> usize {
        self.inputs
    }

    /// How well blocks of `format` hold the weights.
    pub(in crate::checkpoint) fn fit(&self, format: Format) -> Fit {
        // In activation order, the inputs of a block have scales of many groups.
        if self.groups.chunks(BLOCK).any(|block| block.iter().any(|group| *group != block[0])) {
            return Fit::Not;
        }
        let blocks = self.inputs.div_ceil(BLOCK);
        let fits = (0..self.outputs).flat_map(|row| (0..blocks).map(move |index| (row, index)));
        fits.map(|(row, index)| self.block_fit(row, index, format)).min().unwrap_or(Fit::Not)
    }

    fn block_fit(&self, row: usize, index: usize, format: Format) -> Fit {
        let (levels, scale) = self.levels_of(row, index);
        let low = levels.iter().copied().min().unwrap_or_default();
        let high = levels.iter().copied().max().unwrap_or_default();
        let has_room = match format {
            Format::Q4Scale32 => low >= -8 && high <= 7,
            Format::Q4Min32 => high - low <= 15,
            Format::Q6Scale32 => low >= -32 && high <= 31,
            Format::Q8Scale32 => low >= -128 && high <= 127,
            Format::Q4K | Format::Q5K | Format::Q6K => false,
        };
        let rounded = f16::from_f32(scale).to_f32();
        let is_near = (rounded - scale).abs() <= HALF_ULP * scale.abs();
        if !has_room || !is_near || !rounded.is_finite() {
            return Fit::Not;
        }
        let (_, offset_error) = if format == Format::Q4Min32 { base(low, high, rounded) } else { (0, 0.0) };
        if rounded == scale && offset_error == 0.0 {
            return Fit::Exactly;
        }
        if offset_error.is_finite() { Fit::Nearly } else { Fit::Not }
    }

    /// Block `index` of row `row`, for a format that holds the weights.
    pub(in crate::checkpoint) fn block(&self, row: usize, index: usize, format: Format) -> Block {
        let (levels, scale) = self.levels_of(row, index);
        let scale = f16::from_f32(scale).to_f32();
        let base = match format {
            Format::Q4Scale32 => -8,
            Format::Q6Scale32 => -32,
            Format::Q8Scale32 => -128,
            // Formats with factors hold no levels.
            Format::Q4Min32 | Format::Q4K | Format::Q5K | Format::Q6K => {
                let low = levels.iter().copied().min().unwrap_or_default();
                base(low, levels.iter().copied().max().unwrap_or_default(), scale).0
            }
        };
        let mut quants = [0; BLOCK];
        for (quant, level) in quants.iter_mut().zip(levels) {
            *quant = (level - base) as u8;
        }
        Block::new(scale, scale * f32::from(base), quants)
    }

    /// Levels of a block, and the scale of its first input.
    fn levels_of(&self, row: usize, index: usize) -> (&[i16], f32) {
        let (from, to) = (index * BLOCK, self.inputs.min((index + 1) * BLOCK));
        let groups = self.scales.len() / self.outputs.max(1);
        let levels = &self.levels[row * self.inputs..][from..to];
        (levels, self.scales[row * groups + self.groups[from] as usize])
    }
}

/// The level that quant 0 of a block from `low` to `high` stands for, and the error of the minimum in f16: of all levels
/// from which sixteen reach both ends, the one whose product with the scale is rounded least.
fn base(low: i16, high: i16, scale: f32) -> (i16, f32) {
    let error = |level: i16| {
        let offset = scale * f32::from(level);
        (f16::from_f32(offset).to_f32() - offset).abs()
    };
    let candidates = (high - 15..=low).map(|level| (level, error(level)));
    candidates.min_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap_or((low, f32::INFINITY))
}

/// Groups of `size` inputs one after the other.
pub(super) fn even_groups(inputs: usize, size: usize) -> Vec<u32> {
    (0..inputs).map(|input| (input / size.max(1)) as u32).collect()
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 3] = [Format::Q4Scale32, Format::Q4Min32, Format::Q8Scale32];

    /// One row of 64 levels in groups of 32.
    fn levels(levels: impl Fn(usize) -> i16, scales: [f32; 2]) -> Levels {
        let groups = even_groups(64, 32);
        Levels { outputs: 1, inputs: 64, levels: (0..64).map(levels).collect(), scales: scales.to_vec(), groups }
    }

    /// The largest error of a format, in steps.
    fn error(of: &Levels, format: Format) -> f32 {
        let mut worst: f32 = 0.0;
        for (index, values) in of.values().chunks(BLOCK).enumerate() {
            let block = of.block(0, index, format);
            let (factor, addend) = match format {
                Format::Q4Scale32 => (block.scale, -8.0 * block.scale),
                Format::Q8Scale32 => (block.scale, -128.0 * block.scale),
                _ => (block.scale, f16::from_f32(block.offset).to_f32()),
            };
            for (value, quant) in values.iter().zip(block.quants) {
                worst = worst.max((f32::from(quant).mul_add(factor, addend) - value).abs() / factor);
            }
        }
        worst
    }

    #[test]
    fn formats_hold_what_they_have_room_for() {
        let scale = f16::from_f32(0.011).to_f32();
        let of = |zero: i16, top: i16| levels(move |i| (i as i16 % (top + 1)) - zero, [scale; 2]);
        let fits = |of: &Levels| FORMATS.map(|format| of.fit(format));
        assert_eq!(fits(&of(8, 15)), [Fit::Exactly; 3], "-8 to 7");
        assert_eq!(fits(&of(11, 15)), [Fit::Not, Fit::Nearly, Fit::Exactly], "-11 to 4");
        assert_eq!(fits(&of(10, 7)), [Fit::Not, Fit::Exactly, Fit::Exactly], "-10 to -3 also starts at -16");
        assert_eq!(fits(&of(128, 255)), [Fit::Not, Fit::Not, Fit::Exactly]);
        assert_eq!(fits(&of(-100, 63)), [Fit::Not; 3], "100 to 163");
    }

    #[test]
    fn what_is_held_exactly_comes_back_exactly_and_the_rest_nearly() {
        let mut worst: f32 = 0.0;
        for zero in 0..=15i16 {
            for step in 1..200 {
                let scale = f16::from_f32(step as f32 * 1.7e-4).to_f32();
                let of = levels(|i| (i as i16 % 16) - zero, [scale, 2.0 * scale]);
                for format in FORMATS {
                    match of.fit(format) {
                        Fit::Exactly => assert_eq!(error(&of, format), 0.0, "{format:?} {zero} {scale}"),
                        Fit::Nearly => worst = worst.max(error(&of, format)),
                        Fit::Not => {}
                    }
                }
            }
        }
        // Half an ulp of the largest minimum, 15 steps; docs/models.md has the number.
        assert!(worst > 0.006 && worst <= 15.0 / 2048.0, "{worst}");
    }

    #[test]
    fn scales_that_f16_lacks_are_near_or_too_small() {
        let of = |scale: f32| levels(|i| i as i16 % 16 - 8, [scale; 2]);
        assert_eq!(of(0.011).fit(Format::Q4Scale32), Fit::Nearly);
        assert!(error(&of(0.011), Format::Q4Scale32) <= 8.0 / 2048.0);
        assert_eq!(of(1e-7).fit(Format::Q4Scale32), Fit::Not);
        assert_eq!(of(1e9).fit(Format::Q4Scale32), Fit::Not);
        assert_eq!(of(f32::NAN).fit(Format::Q4Scale32), Fit::Not);
        let mut ordered = of(0.5);
        ordered.groups[3] = 1;
        assert_eq!(ordered.fit(Format::Q4Scale32), Fit::Not, "a block in which groups are mixed");
    }
}
