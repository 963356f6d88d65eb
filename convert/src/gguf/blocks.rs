//! Blocks of 32 values with one scale (and, in the `_1` types, one minimum).
//!
//! Nibbles: the low ones of the 16 bytes are values 0 to 15, the high ones 16 to 31.

use half::f16;

pub(super) const LEN: usize = 32;

pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Value `index` of 16 bytes of nibbles.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    if index < 16 { bytes[index] & 0x0f } else { bytes[index - 16] >> 4 }
}

/// Bit `index` of four bytes, as the fifth bit of a value.
fn fifth(bits: &[u8], index: usize) -> u8 {
    (bits[index / 8] >> (index % 8) & 1) << 4
}

/// `d: f16, q: [nibble; 32]`; `d · (q - 8)`.
pub(super) fn q4_0(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    out.extend((0..LEN).map(|i| d * (f32::from(nibble(&block[2..], i)) - 8.0)));
}

/// `d, m: f16, q: [nibble; 32]`; `d · q + m`.
pub(super) fn q4_1(block: &[u8], out: &mut Vec<f32>) {
    let (d, m) = (half(block, 0), half(block, 2));
    out.extend((0..LEN).map(|i| d * f32::from(nibble(&block[4..], i)) + m));
}

/// `d: f16, high: [bit; 32], q: [nibble; 32]`; `d · (q - 16)`.
pub(super) fn q5_0(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let (high, low) = block[2..].split_at(4);
    out.extend((0..LEN).map(|i| d * (f32::from(nibble(low, i) | fifth(high, i)) - 16.0)));
}

/// `d, m: f16, high: [bit; 32], q: [nibble; 32]`; `d · q + m`.
pub(super) fn q5_1(block: &[u8], out: &mut Vec<f32>) {
    let (d, m) = (half(block, 0), half(block, 2));
    let (high, low) = block[4..].split_at(4);
    out.extend((0..LEN).map(|i| d * f32::from(nibble(low, i) | fifth(high, i)) + m));
}

/// `d: f16, q: [i8; 32]`; `d · q`.
pub(super) fn q8_0(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    out.extend(block[2..].iter().map(|q| f32::from(*q as i8) * d));
}

/// Levels of the types IQ4, denser around zero (ggml's `kvalues_iq4nl`).
const IQ4_LEVELS: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];
/// Floats of four bits (E2M1 of OCP's microscaling formats), doubled.
const E2M1: [f32; 16] = [0., 1., 2., 3., 4., 6., 8., 12., 0., -1., -2., -3., -4., -6., -8., -12.];

/// Values of 16 bytes of nibbles, `scale · level`.
pub(super) fn iq4(nibbles: &[u8], scale: f32, out: &mut Vec<f32>) {
    out.extend((0..LEN).map(|i| scale * IQ4_LEVELS[usize::from(nibble(nibbles, i))]));
}

/// `d: f16, q: [nibble; 32]`; `d · level`.
pub(super) fn iq4_nl(block: &[u8], out: &mut Vec<f32>) {
    iq4(&block[2..], half(block, 0), out);
}

/// `e: u8, q: [nibble; 32]`; `2^(e - 128)` times a level that is doubled.
pub(super) fn mxfp4(block: &[u8], out: &mut Vec<f32>) {
    let exponent = u32::from(block[0]);
    // The two smallest powers are subnormal.
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
    let scale = f32::from_bits(bits);
    out.extend((0..LEN).map(|i| scale * E2M1[usize::from(nibble(&block[1..], i))]));
}
