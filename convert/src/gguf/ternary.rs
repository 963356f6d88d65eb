//! Blocks of 256 values that are minus one, zero or one times a scale.

use super::blocks::half;

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// `q: [u8; 52], d: f16`: five values of three in each of the first 48 bytes, four in the others; `d · (q - 1)`.
///
/// A byte is the fraction `value / 243` of 256, so the first digit of three is what a product with three has above 256.
/// Digits are in runs of 32, 16 and 4 bytes: the first digit of each byte, then the second ones.
pub(super) fn tq1_0(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 52);
    for (run, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for power in &POWERS[..digits] {
            out.extend(run.iter().map(|byte| {
                let digit = (u16::from(byte.wrapping_mul(*power)) * 3) >> 8;
                d * (f32::from(digit) - 1.0)
            }));
        }
    }
}

/// `q: [2 bits; 256], d: f16`, in runs of 32 bytes (four shifts each); `d · (q - 1)`.
pub(super) fn tq2_0(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 64);
    for run in block[..64].chunks_exact(32) {
        for shift in [0, 2, 4, 6] {
            out.extend(run.iter().map(|byte| d * (f32::from(byte >> shift & 3) - 1.0)));
        }
    }
}
