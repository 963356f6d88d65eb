//! The largest logits of a row: what most requests need of it, so that the rest can stay on a device.

/// Candidates of a row.
pub const TOP: usize = 64;

/// Bytes of device memory that the selection of [`Top`] takes for so many rows: temperatures, tokens, logits and sums.
pub(super) fn work_bytes(rows: usize) -> usize {
    rows * (1 + 2 * TOP + 2) * size_of::<f32>()
}

/// The largest logits of a row, largest first, equal ones by their token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top<'a> {
    /// Tokens.
    pub ids: &'a [u32],
    /// Their logits.
    pub logits: &'a [f32],
    /// `ln(sum(exp(logit)))` over the whole row.
    pub log_sum_exp: f32,
    /// `sum(exp((logit - largest) / temperature))` over the whole row, for the temperature of the request.
    pub total: f32,
}

/// [`Top`] of several rows. A row that is not finite has a `log_sum_exp` of NaN.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TopRows {
    pub(super) ids: Vec<u32>,
    pub(super) logits: Vec<f32>,
    pub(super) log_sum_exp: Vec<f32>,
    pub(super) total: Vec<f32>,
    /// Candidates of a row: [`TOP`], or all tokens of a small vocabulary.
    pub(super) width: usize,
}

impl TopRows {
    /// That of row `row`.
    pub(crate) fn row(&self, row: usize) -> Option<Top<'_>> {
        let part = row * self.width..(row + 1) * self.width;
        Some(Top {
            ids: self.ids.get(part.clone())?,
            logits: self.logits.get(part)?,
            log_sum_exp: *self.log_sum_exp.get(row)?,
            total: *self.total.get(row)?,
        })
    }

    /// Of rows in the host's memory, with a temperature for each.
    pub(crate) fn of(logits: &[f32], vocab: usize, temperatures: &[f32]) -> Self {
        let mut top = Self { width: TOP.min(vocab), ..Self::default() };
        for (row, &temperature) in logits.chunks_exact(vocab).zip(temperatures) {
            let mut ids: Vec<u32> = (0..vocab as u32).collect();
            let larger = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            ids.select_nth_unstable_by(top.width - 1, larger);
            ids.truncate(top.width);
            ids.sort_unstable_by(larger);
            let largest = row[ids[0] as usize];
            let sum = |temperature: f32| -> f32 { row.iter().map(|x| ((x - largest) / temperature).exp()).sum() };
            let finite = largest.is_finite() && row.iter().all(|x| !x.is_nan());
            top.log_sum_exp.push(if finite { largest + sum(1.0).ln() } else { f32::NAN });
            top.total.push(sum(temperature));
            top.logits.extend(ids.iter().map(|&id| row[id as usize]));
            top.ids.extend(ids);
        }
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_largest_first_and_equal_ones_by_their_token() {
        let mut row = vec![0.0; 200];
        (row[7], row[150], row[30]) = (3.0, 5.0, 3.0);
        let top = TopRows::of(&row, 200, &[0.5]);
        let top = top.row(0).unwrap();
        assert_eq!(
            (top.ids.len(), &top.ids[..5], &top.logits[..4]),
            (TOP, &[150, 7, 30, 0, 1][..], &[5.0, 3.0, 3.0, 0.0][..])
        );
        let total = 1.0 + 2.0 * (-4f32).exp() + 197.0 * (-10f32).exp();
        assert!((top.total - total).abs() < 1e-5, "{} {total}", top.total);
        let sum = 5f32.exp() + 2.0 * 3f32.exp() + 197.0;
        assert!((top.log_sum_exp - sum.ln()).abs() < 1e-5);
    }

    #[test]
    fn a_row_that_is_not_finite_says_so() {
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut row = vec![0.0; 100];
            row[50] = wrong;
            assert!(TopRows::of(&row, 100, &[1.0]).row(0).unwrap().log_sum_exp.is_nan());
        }
    }
}
