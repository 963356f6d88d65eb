//! Little-endian floats of files, and their conversion to f32, in loops that the compiler vectorises.
#![allow(unsafe_code)] // Functions compiled for an instruction set, called after the level was checked.

use half::f16;

use crate::{
    level::Level,
    rowwise,
    simd::{self, Simd, WIDTH},
};

/// Encoding of a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// 32 bits.
    F32,
    /// 16 bits, 5 of them exponent.
    F16,
    /// The upper 16 bits of an f32.
    Bf16,
}

/// A view of encoded floats.
#[derive(Debug, Clone, Copy)]
pub struct Floats<'a> {
    /// Encoding of each float.
    pub float: Float,
    /// Bytes of a whole number of floats.
    pub bytes: &'a [u8],
}

impl<'a> Floats<'a> {
    /// The values as f32: converted in `room`, or the bytes themselves if they are f32.
    pub fn values(self, room: &'a mut Vec<f32>) -> &'a [f32] {
        if self.float == Float::F32
            && let Ok(values) = bytemuck::try_cast_slice(self.bytes)
        {
            return values;
        }
        room.resize(self.len(), 0.0);
        self.widen(room);
        room
    }

    /// Appends the values as f32.
    pub fn append_to(self, values: &mut Vec<f32>) {
        let begin = values.len();
        values.resize(begin + self.len(), 0.0);
        self.widen(&mut values[begin..]);
    }

    /// Number of floats.
    fn len(self) -> usize {
        self.bytes.len() / if self.float == Float::F32 { size_of::<f32>() } else { size_of::<f16>() }
    }

    /// Converts the values to f32; `values` has their number.
    fn widen(self, values: &mut [f32]) {
        let (bytes, level) = (self.bytes, Level::best());
        match self.float {
            Float::F32 => {
                let floats = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                values.iter_mut().zip(floats).for_each(|(value, float)| *value = float);
            }
            // SAFETY: the CPU has its best level.
            Float::F16 => unsafe { simd::at_level!(level, widen_f16, (bytes: &[u8], values: &mut [f32])) },
            Float::Bf16 => rowwise::at_level!(level, widen_bf16(bytes: &[u8], values: &mut [f32])),
        }
    }

    /// Whether all are finite: NaN and infinity have all bits of the exponent set.
    pub fn are_finite(self) -> bool {
        let (bytes, level) = (self.bytes, Level::best());
        match self.float {
            Float::F32 => rowwise::at_level!(level, finite_f32(bytes: &[u8]) -> bool),
            Float::F16 => rowwise::at_level!(level, finite_f16(bytes: &[u8]) -> bool),
            Float::Bf16 => rowwise::at_level!(level, finite_bf16(bytes: &[u8]) -> bool),
        }
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}

#[inline(always)]
unsafe fn widen_f16<S: Simd>(bytes: &[u8], values: &mut [f32]) {
    let (many, rest) = bytes.as_chunks::<{ WIDTH * size_of::<f16>() }>();
    let (to, to_rest) = values.as_chunks_mut::<WIDTH>();
    for (halves, values) in many.iter().zip(to) {
        // SAFETY: so many here and there, and the CPU has the level; vectors need no alignment.
        unsafe { S::load_f16(halves.as_ptr().cast()).store(values.as_mut_ptr()) };
    }
    for (value, half) in to_rest.iter_mut().zip(halves(rest)) {
        *value = f16::from_bits(half).to_f32_const();
    }
}

#[inline(always)]
fn widen_bf16(bytes: &[u8], values: &mut [f32]) {
    for (value, half) in values.iter_mut().zip(halves(bytes)) {
        *value = f32::from_bits(u32::from(half) << 16);
    }
}

#[inline(always)]
fn finite_f32(bytes: &[u8]) -> bool {
    let bits = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    bits.fold(true, |finite, bits| finite & (bits & 0x7f80_0000 != 0x7f80_0000))
}

#[inline(always)]
fn finite_f16(bytes: &[u8]) -> bool {
    halves(bytes).fold(true, |finite, half| finite & (half & 0x7c00 != 0x7c00))
}

#[inline(always)]
fn finite_bf16(bytes: &[u8]) -> bool {
    halves(bytes).fold(true, |finite, half| finite & (half & 0x7f80 != 0x7f80))
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Every value of 16 bits there is.
    #[test]
    fn every_half_widens_and_is_finite_or_not_as_by_itself() {
        type One = fn(u16) -> f32;
        let kinds: [(Float, One); 2] =
            [(Float::F16, |bits| f16::from_bits(bits).to_f32()), (Float::Bf16, |bits| bf16::from_bits(bits).to_f32())];
        for (float, one) in kinds {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![7.0];
            Floats { float, bytes: &bytes }.append_to(&mut values);
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
        floats.append_to(&mut values);
        assert_eq!((values.as_slice(), floats.are_finite()), ([1.5, -2.0, f32::MAX].as_slice(), true));
        // Wherever they begin.
        for begin in 0..4 {
            let moved = [&[0; 3][..begin.min(3)], &bytes].concat();
            let floats = Floats { float: Float::F32, bytes: &moved[begin.min(3)..] };
            assert_eq!(floats.values(&mut vec![7.0]), values);
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!Floats { float: Float::F32, bytes: &written(&[0.0, value]) }.are_finite());
        }
    }
}
