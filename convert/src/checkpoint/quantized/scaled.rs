//! Small floats with a scale for each rectangle of the matrix.

use super::PackedWeight;
use super::values::{e2m1, e4m3, e5m2, floats};
use crate::checkpoint::shards::Part;

/// A weight is its element times the scale of its rectangle.
#[derive(Debug)]
pub(super) struct Scaled {
    pub(super) inputs: usize,
    /// `[outputs, inputs]` of 8-bit floats, or `[outputs, inputs / 2]` of pairs of 4-bit floats, the first in the low
    /// nibble.
    pub(super) weight: Part,
    /// Row-major, one for each rectangle.
    pub(super) scale: Part,
    /// Divisor of all scales.
    pub(super) divisor: Option<Part>,
    /// Rows and columns of a rectangle.
    pub(super) block: [usize; 2],
}

impl Scaled {
    fn elements(&self) -> Vec<f32> {
        let bytes = self.weight.bytes();
        match self.weight.dtype() {
            "F8_E4M3" => bytes.iter().map(|byte| e4m3(*byte)).collect(),
            "F8_E5M2" => bytes.iter().map(|byte| e5m2(*byte)).collect(),
            _ => bytes.iter().flat_map(|byte| [e2m1(byte & 15), e2m1(byte >> 4)]).collect(),
        }
    }
}

impl PackedWeight for Scaled {
    fn bits(&self) -> u8 {
        if self.weight.dtype().starts_with("F8") { 8 } else { 4 }
    }

    fn values(&self) -> Vec<f32> {
        let mut values = self.elements();
        let mut scales = floats(&self.scale);
        if let Some(divisor) = self.divisor.as_ref().and_then(|part| floats(part).first().copied()) {
            scales.iter_mut().for_each(|scale| *scale /= divisor);
        }
        let [rows, columns] = self.block.map(|size| size.max(1));
        let across = self.inputs.div_ceil(columns);
        for (row, values) in values.chunks_mut(self.inputs.max(1)).enumerate() {
            let scales = &scales[row / rows * across..][..across];
            for (values, scale) in values.chunks_mut(columns).zip(scales) {
                values.iter_mut().for_each(|value| *value *= scale);
            }
        }
        values
    }
}
