//! Symmetric block quantisation, in the layout of ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized`.
//!
//! A row of `K` weights is cut into blocks of [`BLOCK`]; block `b` holds integers `q` and one scale `s`, and stands
//! for `(q - zero) * s` with `zero` 8 (4-bit) or 128 (8-bit). 4-bit integers are packed two a byte, the even index in
//! the low half.
//!
//! The scale is not the one that just fits the largest weight: rounding error is what costs quality, so a handful of
//! scales around it are tried and the one with the least squared error is kept.

/// Weights that share a scale.
pub const BLOCK: usize = 64;

/// Quantised rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Packed integers, `rows * ceil(K / BLOCK) * BLOCK * bits / 8` bytes.
    pub packed: Vec<u8>,
    /// One scale a block, row after row.
    pub scales: Vec<f32>,
}

/// Width of a quantised weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// 4 bits, values -8..=7.
    Four,
    /// 8 bits, values -128..=127.
    Eight,
}

impl Bits {
    /// The number itself.
    pub fn get(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    fn lowest(self) -> f32 {
        match self {
            Self::Four => -8.0,
            Self::Eight => -128.0,
        }
    }
}

/// Quantises `rows` of length `k`, row-major. `data.len()` must be a multiple of `k`.
pub fn quantize(data: &[f32], k: usize, bits: Bits) -> Quantized {
    let blocks = k.div_ceil(BLOCK);
    let rows = data.len() / k;
    let mut packed = Vec::with_capacity(rows * blocks * BLOCK * bits.get() / 8);
    let mut scales = Vec::with_capacity(rows * blocks);
    let mut padded = [0f32; BLOCK];
    for row in data.chunks_exact(k) {
        for block in row.chunks(BLOCK) {
            padded[..block.len()].copy_from_slice(block);
            padded[block.len()..].fill(0.0);
            let scale = best_scale(&padded, bits);
            scales.push(scale);
            pack(&padded, scale, bits, &mut packed);
        }
    }
    Quantized { packed, scales }
}

/// Of the scales that put the extreme weight at the end of the range, and a few smaller and larger, the best.
fn best_scale(block: &[f32; BLOCK], bits: Bits) -> f32 {
    let extreme = block.iter().fold(0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    if extreme == 0.0 {
        return 0.0;
    }
    let fit = extreme / bits.lowest();
    if bits == Bits::Eight {
        return fit; // 256 levels: the search would gain nothing that a logit could show
    }
    let mut best = (f32::INFINITY, fit);
    // The negative of a scale reaches one step less far for the extreme weight and one further for its opposite.
    for scale in (-4i32..=8).map(|i| fit * (1.0 - 0.025 * i as f32)).chain([-extreme / (bits.lowest() + 1.0)]) {
        let error = squared_error(block, scale, bits);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

fn squared_error(block: &[f32; BLOCK], scale: f32, bits: Bits) -> f32 {
    let (inverse, low) = (1.0 / scale, bits.lowest());
    let mut lanes = [0f32; 8];
    for chunk in block.chunks_exact(8) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            let q = (x * inverse).round_ties_even().clamp(low, -low - 1.0);
            let e = x - q * scale;
            *lane += e * e;
        }
    }
    lanes.iter().sum()
}

fn pack(block: &[f32; BLOCK], scale: f32, bits: Bits, out: &mut Vec<u8>) {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let low = bits.lowest();
    let level = |x: f32| ((x * inverse).round_ties_even().clamp(low, -low - 1.0) - low) as u8;
    match bits {
        Bits::Four => out.extend(block.chunks_exact(2).map(|p| level(p[0]) | (level(p[1]) << 4))),
        Bits::Eight => out.extend(block.iter().map(|&x| level(x))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dequantize(q: &Quantized, k: usize, bits: Bits) -> Vec<f32> {
        let blocks = k.div_ceil(BLOCK);
        let bytes = BLOCK * bits.get() / 8;
        let mut out = Vec::new();
        for (row, scales) in q.packed.chunks(blocks * bytes).zip(q.scales.chunks(blocks)) {
            let mut values = Vec::new();
            for (block, &scale) in row.chunks(bytes).zip(scales) {
                for &byte in block {
                    match bits {
                        Bits::Four => {
                            values.push((f32::from(byte & 15) - 8.0) * scale);
                            values.push((f32::from(byte >> 4) - 8.0) * scale);
                        }
                        Bits::Eight => values.push((f32::from(byte) - 128.0) * scale),
                    }
                }
            }
            out.extend_from_slice(&values[..k]);
        }
        out
    }

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i) as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    #[test]
    fn error_is_within_half_a_step_of_the_fitting_scale() {
        for (k, bits) in [(64, Bits::Four), (96, Bits::Four), (130, Bits::Eight), (64, Bits::Eight)] {
            let data = wave(3 * k);
            let back = dequantize(&quantize(&data, k, bits), k, bits);
            let largest = data.iter().fold(0f32, |m, x| m.max(x.abs()));
            // The searched scale may give up the extreme weight by a little to win on all others.
            let bound = largest / -bits.lowest() * 1.2;
            for (a, b) in data.iter().zip(&back) {
                assert!((a - b).abs() <= bound, "{a} became {b}, bound {bound} (k={k}, {bits:?})");
            }
        }
    }

    #[test]
    fn the_search_never_does_worse_than_the_fitting_scale() {
        let data = wave(BLOCK * 50);
        for block in data.chunks_exact(BLOCK) {
            let block: &[f32; BLOCK] = block.try_into().unwrap();
            let extreme = block.iter().fold(0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
            let fit = squared_error(block, extreme / -8.0, Bits::Four);
            assert!(squared_error(block, best_scale(block, Bits::Four), Bits::Four) <= fit);
        }
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        let q = quantize(&[0.0; BLOCK], BLOCK, Bits::Four);
        assert_eq!((q.scales[0], q.packed[0]), (0.0, 0x88));
    }
}
