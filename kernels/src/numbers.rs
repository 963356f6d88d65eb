//! Helpers for rounding, in a form that the compiler vectorises.

/// The nearest integer, even on a tie, of a number below 2^22 in magnitude; anything for others.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    // Adding 1.5 * 2^23 leaves it in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits().cast_signed().wrapping_sub(MAGIC.to_bits().cast_signed())
}

/// The largest magnitude of numbers of which none is a NaN.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let mut most = [0f32; 8];
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (whole, rest) = x.as_chunks::<8>();
    for eight in whole {
        most.iter_mut().zip(eight).for_each(|(most, x)| *most = larger(*most, x.abs()));
    }
    most.iter_mut().zip(rest).for_each(|(most, x)| *most = larger(*most, x.abs()));
    most.into_iter().fold(0.0, larger)
}

#[cfg(test)]
mod tests {
    use super::{largest, nearest};

    #[test]
    fn the_largest_is_found_wherever_it_is() {
        for len in [1, 7, 8, 9, 31] {
            for at in 0..len {
                let mut x = vec![0.5; len];
                x[at] = -2.0;
                assert_eq!(largest(&x), 2.0);
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_one() {
        for (x, want) in [(0.5, 0), (1.5, 2), (-0.5, 0), (-2.5, -2), (126.9, 127), (-32767.2, -32767)] {
            assert_eq!(nearest(x), want, "{x}");
        }
    }
}
