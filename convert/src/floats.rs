//! Floats as files have them, little-endian.
//!
//! Everything goes over many values at a time: the instruction that converts eight is looked for once a call, which costs
//! more than converting one, and a loop that may stop at each value takes one after the other.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// Values that are converted at once; they stay in the first cache.
const AT_ONCE: usize = 1024;

/// How a float is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float {
    F32,
    F16,
    Bf16,
}

/// Some of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floats<'a> {
    pub(crate) float: Float,
    pub(crate) bytes: &'a [u8],
}

impl Floats<'_> {
    /// Appends them as f32.
    pub(crate) fn widen(self, values: &mut Vec<f32>) {
        match self.float {
            Float::F32 => values.extend(self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            Float::F16 => widen(self.bytes, f16::from_bits, |halves, wide| halves.convert_to_f32_slice(wide), values),
            Float::Bf16 => widen(self.bytes, bf16::from_bits, |halves, wide| halves.convert_to_f32_slice(wide), values),
        }
    }

    /// Whether none is infinite or no number: those have all bits of the exponent.
    pub(crate) fn are_finite(self) -> bool {
        let halves = |exponent: u16| {
            let halves = self.bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
            halves.fold(true, |finite, bits| finite & (bits & exponent != exponent))
        };
        match self.float {
            Float::F32 => {
                let floats = self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                floats.fold(true, |finite, value| finite & value.is_finite())
            }
            Float::F16 => halves(0x7c00),
            Float::Bf16 => halves(0x7f80),
        }
    }
}

fn widen<H: Copy>(bytes: &[u8], half: impl Fn(u16) -> H, convert: impl Fn(&[H], &mut [f32]), values: &mut Vec<f32>) {
    let halves = bytes.as_chunks().0;
    let begin = values.len();
    values.resize(begin + halves.len(), 0.0);
    let mut buffer = [half(0); AT_ONCE];
    for (halves, values) in halves.chunks(AT_ONCE).zip(values[begin..].chunks_mut(AT_ONCE)) {
        for (value, bytes) in buffer.iter_mut().zip(halves) {
            *value = half(u16::from_le_bytes(*bytes));
        }
        convert(&buffer[..values.len()], values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of 16 bits there is, and so more than are converted at once.
    #[test]
    fn every_half_widens_and_is_finite_or_not_as_by_itself() {
        type One = fn(u16) -> f32;
        let kinds: [(Float, One); 2] =
            [(Float::F16, |bits| f16::from_bits(bits).to_f32()), (Float::Bf16, |bits| bf16::from_bits(bits).to_f32())];
        for (float, one) in kinds {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![7.0];
            Floats { float, bytes: &bytes }.widen(&mut values);
            assert_eq!((values.len(), values[0]), (1 + (1 << 16), 7.0));
            for (bits, value) in (0..=u16::MAX).zip(&values[1..]) {
                let expected = one(bits);
                assert!(
                    value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(),
                    "{float:?} {bits}"
                );
                let alone = Floats { float, bytes: &bits.to_le_bytes() }.are_finite();
                assert_eq!(alone, expected.is_finite(), "{float:?} {bits}");
            }
        }
    }

    #[test]
    fn floats_of_32_bits_are_themselves() {
        let written = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let bytes = written(&[1.5, -2.0, f32::MAX]);
        let floats = Floats { float: Float::F32, bytes: &bytes };
        let mut values = Vec::new();
        floats.widen(&mut values);
        assert_eq!((values.as_slice(), floats.are_finite()), ([1.5, -2.0, f32::MAX].as_slice(), true));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!Floats { float: Float::F32, bytes: &written(&[0.0, value]) }.are_finite());
        }
    }
}
