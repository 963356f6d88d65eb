//! Blocks of 256 values whose groups of four or eight are points of a grid (the IQ1, IQ2 and IQ3 types).
//!
//! A group is an index of a point, and, but for IQ1, eight signs. The points are those of ggml (`iq2xxs_grid` and others
//! in `ggml-common.h`), as gguf-py has them; `tests/fixtures/make_gguf.py` packs them.

use super::blocks::half;

/// Values of one point after another: indices in `values`, of so many bits each, the lowest bits first.
struct Grid {
    packed: &'static [u8],
    bits: usize,
    /// Values of a point.
    width: usize,
    values: &'static [f32],
}

const OF_2_BITS: &[f32] = &[8.0, 25.0, 43.0];
const IQ2_XXS: Grid = Grid { packed: include_bytes!("grids/iq2_xxs.bin"), bits: 2, width: 8, values: OF_2_BITS };
const IQ2_XS: Grid = Grid { packed: include_bytes!("grids/iq2_xs.bin"), bits: 2, width: 8, values: OF_2_BITS };
const IQ2_S: Grid = Grid { packed: include_bytes!("grids/iq2_s.bin"), bits: 2, width: 8, values: OF_2_BITS };
const IQ3_XXS: Grid = Grid {
    packed: include_bytes!("grids/iq3_xxs.bin"),
    bits: 4,
    width: 4,
    values: &[4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0],
};
const IQ3_S: Grid = Grid {
    packed: include_bytes!("grids/iq3_s.bin"),
    bits: 4,
    width: 4,
    values: &[1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0],
};
const IQ1: Grid = Grid { packed: include_bytes!("grids/iq1_s.bin"), bits: 2, width: 8, values: &[-1.0, 0.0, 1.0] };
/// Shift of all values of a group of IQ1, up or down.
const IQ1_SHIFT: f32 = 0.125;

impl Grid {
    /// Values of a point.
    fn point(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        (index * self.width..(index + 1) * self.width).map(|at| {
            let bit = at * self.bits;
            let index = self.packed[bit / 8] >> (bit % 8) & ((1 << self.bits) - 1);
            self.values[usize::from(index)]
        })
    }
}

/// Bit `index` of a byte as a factor.
fn sign(signs: u8, index: usize) -> f32 {
    if signs >> index & 1 == 0 { 1.0 } else { -1.0 }
}

/// Eight signs in seven bits: the last one makes their number even.
fn even(signs: u32) -> u8 {
    let signs = (signs & 0x7f) as u8;
    signs | (signs.count_ones() as u8 & 1) << 7
}

fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (index % 2 * 4) & 0x0f
}

fn u16_at(bytes: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])
}

fn u32_at(bytes: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `d: f16`, then 8 times `points: [u8; 4], signs: [7 bits; 4], scale: 4 bits`; `d · (scale + 1/2) / 4 · point`.
pub(super) fn iq2_xxs(block: &[u8], out: &mut Vec<f32>) {
    let (d, groups) = (half(block, 0), &block[2..]);
    for group in 0..8 {
        let rest = u32_at(groups, 2 * group + 1);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
        for part in 0..4 {
            let signs = even(rest >> (7 * part));
            let point = IQ2_XXS.point(usize::from(groups[8 * group + part]));
            out.extend(point.enumerate().map(|(index, value)| scale * value * sign(signs, index)));
        }
    }
}

/// `d: f16, groups: [point: 9 bits, signs: 7 bits; 32], scales: [nibble; 16]`; as [`iq2_xxs`].
pub(super) fn iq2_xs(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let (groups, scales) = block[2..].split_at(64);
    for group in 0..32 {
        let bits = u16_at(groups, group);
        let scale = d * (0.5 + f32::from(nibble(scales, group / 2))) * 0.25;
        let signs = even(u32::from(bits >> 9));
        let point = IQ2_XS.point(usize::from(bits & 0x1ff));
        out.extend(point.enumerate().map(|(index, value)| scale * value * sign(signs, index)));
    }
}

/// `d: f16, points: [u8; 32], signs: [u8; 32], high: [2 bits; 32], scales: [nibble; 16]`; as [`iq2_xxs`].
pub(super) fn iq2_s(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let (points, rest) = block[2..].split_at(32);
    let (signs, rest) = rest.split_at(32);
    let (high, scales) = rest.split_at(8);
    for group in 0..32 {
        let scale = d * (0.5 + f32::from(nibble(scales, group / 2))) * 0.25;
        let high = usize::from(high[group / 4] >> (group % 4 * 2) & 3);
        let point = IQ2_S.point(usize::from(points[group]) | high << 8);
        out.extend(point.enumerate().map(|(index, value)| scale * value * sign(signs[group], index)));
    }
}

/// `d: f16, points: [u8; 64]`, then 8 times `signs: [7 bits; 4], scale: 4 bits`; `d · (scale + 1/2) / 2 · point`.
pub(super) fn iq3_xxs(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let (points, groups) = block[2..].split_at(64);
    for (at, point) in points.iter().enumerate() {
        let rest = u32_at(groups, at / 8);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
        let signs = even(rest >> (at / 2 % 4 * 7)) >> (at % 2 * 4);
        let point = IQ3_XXS.point(usize::from(*point));
        out.extend(point.enumerate().map(|(index, value)| scale * value * sign(signs, index)));
    }
}

/// `d: f16, points: [u8; 64], high: [bit; 64], signs: [bit; 256], scales: [nibble; 8]`; `d · (1 + 2 · scale) · point`.
pub(super) fn iq3_s(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let (points, rest) = block[2..].split_at(64);
    let (high, rest) = rest.split_at(8);
    let (signs, scales) = rest.split_at(32);
    for (at, point) in points.iter().enumerate() {
        let scale = d * f32::from(1 + 2 * nibble(scales, at / 8));
        let signs = nibble(signs, at);
        let high = usize::from(high[at / 8] >> (at % 8) & 1);
        let point = IQ3_S.point(usize::from(*point) | high << 8);
        out.extend(point.enumerate().map(|(index, value)| scale * value * sign(signs, index)));
    }
}

/// `d: f16, points: [u8; 32]`, then 8 times `high: [3 bits; 4], scale: 3 bits, down: bit`;
/// `d · (1 + 2 · scale) · (point ± 1/8)`.
pub(super) fn iq1_s(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 0);
    let (points, groups) = block[2..].split_at(32);
    for (at, point) in points.iter().enumerate() {
        let bits = u16_at(groups, at / 4);
        let scale = d * f32::from(2 * (bits >> 12 & 7) + 1);
        let shift = if bits >> 15 == 0 { IQ1_SHIFT } else { -IQ1_SHIFT };
        let high = usize::from(bits >> (at % 4 * 3) & 7);
        out.extend(IQ1.point(usize::from(*point) | high << 8).map(|value| scale * (value + shift)));
    }
}

/// `points: [u8; 32], groups: [high: 3 bits, down: bit; 32]`, then 4 times `scales: [3 bits; 4]` and four bits of `d`; as
/// [`iq1_s`].
pub(super) fn iq1_m(block: &[u8], out: &mut Vec<f32>) {
    let (points, rest) = block.split_at(32);
    let (groups, scales) = rest.split_at(16);
    let d = (0..4).fold(0, |d, part| d | u16_at(scales, part) >> 12 << (4 * part));
    let d = half(&d.to_le_bytes(), 0);
    for (at, point) in points.iter().enumerate() {
        let scale = u16_at(scales, at / 8) >> (at / 2 % 4 * 3) & 7;
        let scale = d * f32::from(2 * scale + 1);
        let bits = nibble(groups, at);
        let shift = if bits >> 3 == 0 { IQ1_SHIFT } else { -IQ1_SHIFT };
        let high = usize::from(bits & 7);
        out.extend(IQ1.point(usize::from(*point) | high << 8).map(|value| scale * (value + shift)));
    }
}
