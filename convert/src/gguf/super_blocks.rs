//! Blocks of 256 values (the K types and IQ4_XS): one f16 scale over small integer scales of 16 or 32 values each.

use super::blocks::{self, half};

pub(super) const LEN: usize = 256;

/// Eight 6-bit scales and eight 6-bit minima in 12 bytes.
///
/// Bytes 0-3 hold scales 0-3, bytes 4-7 minima 0-3, each in its low six bits; the two bits above them and the nibbles of
/// bytes 8-11 (low: scale, high: minimum) make up numbers 4-7.
fn scale_and_min(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, min) = if index < 4 {
        (packed[index] & 0x3f, packed[index + 4] & 0x3f)
    } else {
        let i = index - 4;
        (packed[8 + i] & 0x0f | packed[i] >> 2 & 0x30, packed[8 + i] >> 4 | packed[4 + i] >> 2 & 0x30)
    };
    (f32::from(scale), f32::from(min))
}

/// `d, dmin: f16, scales: [u8; 12], q: [nibble; 256]`; nibbles in runs of 32 bytes: low ones, then high ones.
pub(super) fn q4_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, d_min) = (half(block, 0), half(block, 2));
    let (packed, nibbles) = block[4..].split_at(12);
    for (run, bytes) in nibbles.chunks_exact(32).enumerate() {
        for side in 0..2 {
            let (scale, min) = scale_and_min(packed, run * 2 + side);
            let (scale, min) = (d * scale, d_min * min);
            out.extend(bytes.iter().map(|b| scale * f32::from(b >> (4 * side) & 0x0f) - min));
        }
    }
}

/// As [`q4_k`], with a fifth bit: bit `g` of 32 bytes belongs to group `g` of 32 values.
pub(super) fn q5_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, d_min) = (half(block, 0), half(block, 2));
    let (packed, rest) = block[4..].split_at(12);
    let (high, nibbles) = rest.split_at(32);
    for (run, bytes) in nibbles.chunks_exact(32).enumerate() {
        for side in 0..2 {
            let group = run * 2 + side;
            let (scale, min) = scale_and_min(packed, group);
            let (scale, min) = (d * scale, d_min * min);
            out.extend(bytes.iter().zip(high).map(|(b, h)| {
                let q = b >> (4 * side) & 0x0f | (h >> group & 1) << 4;
                scale * f32::from(q) - min
            }));
        }
    }
}

/// `low: [nibble; 256], high: [2 bits; 256], scales: [i8; 16], d: f16`; `d · scale · (q - 32)`.
///
/// Nibbles in runs of 64 bytes (low ones, then high ones), pairs of bits in runs of 32 bytes (four shifts each).
pub(super) fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(LEN / 2);
    let (high, rest) = rest.split_at(LEN / 4);
    let (scales, d) = rest.split_at(LEN / 16);
    let d = half(d, 0);
    out.extend((0..LEN).map(|i| {
        let low = low[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 0x0f;
        let high = high[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        let scale = d * f32::from(scales[i / 16] as i8);
        scale * (f32::from(low | high << 4) - 32.0)
    }));
}

/// Pair of bits `index` of 256, in runs of 32 bytes (four shifts each).
fn two_bits(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 128 * 32 + index % 32] >> (index / 32 % 4 * 2) & 3
}

/// `scales: [nibble, nibble of a minimum; 16], q: [2 bits; 256], d, dmin: f16`; `d · scale · q - dmin · minimum`.
pub(super) fn q2_k(block: &[u8], out: &mut Vec<f32>) {
    let (scales, rest) = block.split_at(LEN / 16);
    let (quants, rest) = rest.split_at(LEN / 4);
    let (d, d_min) = (half(rest, 0), half(rest, 2));
    out.extend((0..LEN).map(|i| {
        let packed = scales[i / 16];
        let (scale, min) = (d * f32::from(packed & 0x0f), d_min * f32::from(packed >> 4));
        scale * f32::from(two_bits(quants, i)) - min
    }));
}

/// `high: [bit; 256], low: [2 bits; 256], scales: [6 bits; 16], d: f16`; `d · (scale - 32) · (q - 4)`.
///
/// Bit `g` of 32 bytes belongs to group `g` of 32 values. Scales: nibbles of eight bytes (low ones, then high ones), and
/// pairs of bits of four bytes (four shifts).
pub(super) fn q3_k(block: &[u8], out: &mut Vec<f32>) {
    let (high, rest) = block.split_at(LEN / 8);
    let (low, rest) = rest.split_at(LEN / 4);
    let (packed, d) = rest.split_at(12);
    let d = half(d, 0);
    out.extend((0..LEN).map(|i| {
        let group = i / 16;
        let scale = packed[group % 8] >> (group / 8 * 4) & 0x0f | (packed[8 + group % 4] >> (group / 4 * 2) & 3) << 4;
        let q = two_bits(low, i) | (high[i % 32] >> (i / 32) & 1) << 2;
        d * (f32::from(scale) - 32.0) * (f32::from(q) - 4.0)
    }));
}

/// `d: f16, high: [2 bits; 8], low: [nibble; 8], q: [nibble; 256]`; `d · (scale - 32) · level` of each 32 values.
pub(super) fn iq4_xs(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let (low, nibbles) = block[4..].split_at(4);
    for (group, nibbles) in nibbles.chunks_exact(16).enumerate() {
        let low = low[group / 2] >> (group % 2 * 4) & 0x0f;
        let scale = u16::from(low) | (high >> (2 * group) & 3) << 4;
        blocks::iq4(nibbles, d * (f32::from(scale) - 32.0), out);
    }
}
