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
