//! Numbers of packed parts: small floats, and fields of words.

use half::{bf16, f16};

use crate::checkpoint::shards::Part;

/// Types that [`floats`] reads.
pub(super) const FLOATS: [&str; 3] = ["F32", "F16", "BF16"];

/// Values of a part of one of [`FLOATS`], of 8-bit floats, or of bytes that are exponents of two (`U8`, `F8_E8M0`).
pub(super) fn floats(part: &Part) -> Vec<f32> {
    let bytes = part.bytes();
    match part.dtype() {
        "F32" => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        "F16" => bytes.as_chunks().0.iter().map(|half| f16::from_le_bytes(*half).to_f32()).collect(),
        "BF16" => bytes.as_chunks().0.iter().map(|half| bf16::from_le_bytes(*half).to_f32()).collect(),
        "F8_E4M3" => bytes.iter().map(|byte| e4m3(*byte)).collect(),
        "F8_E5M2" => bytes.iter().map(|byte| e5m2(*byte)).collect(),
        _ => bytes.iter().map(|byte| e8m0(*byte)).collect(),
    }
}

/// Values of an I32 part.
pub(super) fn words(part: &Part) -> Vec<u32> {
    part.bytes().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Field `index` of `bits` bits in a stream of words, lowest bits first.
pub(super) fn field(word: impl Fn(usize) -> u32, index: usize, bits: usize) -> i16 {
    let (at, shift) = (index * bits / 32, index * bits % 32);
    let mut value = word(at) >> shift;
    if shift + bits > 32 {
        value |= word(at + 1) << (32 - shift);
    }
    (value & ((1 << bits) - 1)) as i16
}

/// Words for `count` fields of `bits` bits.
pub(super) fn words_for(count: usize, bits: usize) -> usize {
    count.saturating_mul(bits).div_ceil(32)
}

/// OCP's float with 4 bits of exponent and 3 of mantissa: no infinities, and NaN only with all bits.
pub(super) fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if byte < 128 { magnitude } else { -magnitude }
}

/// OCP's float with 5 bits of exponent and 2 of mantissa: the upper half of an f16.
pub(super) fn e5m2(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// A power of two: OCP's scale of 8 bits of exponent.
fn e8m0(byte: u8) -> f32 {
    if byte == 255 { f32::NAN } else { 2f32.powi(i32::from(byte) - 127) }
}

/// OCP's float with 2 bits of exponent and 1 of mantissa, in the low nibble.
pub(super) fn e2m1(nibble: u8) -> f32 {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let magnitude = MAGNITUDES[usize::from(nibble & 7)];
    if nibble & 8 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats_have_the_values_of_their_definition() {
        // Smallest subnormal, largest subnormal, smallest normal, one, largest.
        assert_eq!([0x01, 0x07, 0x08, 0x38, 0x7e].map(e4m3), [2f32.powi(-9), 7.0 / 512.0, 2f32.powi(-6), 1.0, 448.0]);
        assert_eq!([0x81, 0xb8, 0xfe].map(e4m3), [-(2f32.powi(-9)), -1.0, -448.0]);
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan() && e4m3(0x80).is_sign_negative());
        assert_eq!([0x01, 0x3c, 0x7b].map(e5m2), [2f32.powi(-16), 1.0, 57344.0]);
        assert_eq!([0, 127, 130, 254].map(e8m0), [2f32.powi(-127), 1.0, 8.0, 2f32.powi(127)]);
        assert_eq!([1, 7, 9, 15].map(e2m1), [0.5, 6.0, -0.5, -6.0]);
    }

    #[test]
    fn fields_cross_words() {
        // Eleven fields of three bits: the last has its low bits at the end of the first word.
        let stream = (0..11u64).fold(0, |stream, index| stream | (index % 8) << (3 * index));
        let word = |at: usize| (stream >> (32 * at)) as u32;
        assert_eq!([0, 5, 7, 9, 10].map(|index| field(word, index, 3)), [0, 5, 7, 1, 2]);
        assert_eq!(field(|_| 0xff80_0000, 3, 8), 255);
        assert_eq!((words_for(32, 3), words_for(33, 3), words_for(8, 4)), (3, 4, 1));
    }
}
