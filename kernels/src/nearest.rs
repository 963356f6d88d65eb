//! Rounding that the compiler makes vectors of, on every instruction set the same.

/// The nearest integer, even on a tie, of a number below 2^22 in magnitude; anything for others.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    // Adding 1.5 * 2^23 leaves it in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits().cast_signed().wrapping_sub(MAGIC.to_bits().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn ties_go_to_the_even_one() {
        for (x, want) in [(0.5, 0), (1.5, 2), (-0.5, 0), (-2.5, -2), (126.9, 127), (-32767.2, -32767)] {
            assert_eq!(nearest(x), want, "{x}");
        }
    }
}
