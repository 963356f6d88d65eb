//! Blocks of 256 values (the K types): one f16 scale over small integer scales of 16 or 32 values each.

use super::blocks::half;

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
