//! The tokens that a constraint allows.

/// A set of tokens, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    words: Box<[u32]>,
}

const BITS: usize = u32::BITS as usize;

impl Mask {
    /// Of a bit for each token, the lowest first.
    #[must_use]
    pub fn new(words: &[u32]) -> Self {
        Self { words: words.into() }
    }

    /// Adds a token or takes it out. One beyond the vocabulary changes nothing.
    pub fn set(&mut self, token: u32, allowed: bool) {
        let Some(word) = self.words.get_mut(token as usize / BITS) else { return };
        let bit = 1 << (token as usize % BITS);
        if allowed { *word |= bit } else { *word &= !bit }
    }

    /// Whether no token is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether that token is allowed.
    #[must_use]
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / BITS).is_some_and(|word| word >> (token as usize % BITS) & 1 == 1)
    }

    /// Copies the allowed logits to `kept`; the others are minus infinity there.
    pub(super) fn keep(&self, logits: &[f32], kept: &mut Vec<f32>) {
        kept.clear();
        kept.resize(logits.len(), f32::NEG_INFINITY);
        for ((&word, from), to) in self.words.iter().zip(logits.chunks(BITS)).zip(kept.chunks_mut(BITS)) {
            if word == u32::MAX {
                to.copy_from_slice(from);
                continue;
            }
            let mut left = word;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                if let (Some(from), Some(to)) = (from.get(bit), to.get_mut(bit)) {
                    *to = *from;
                }
                left &= left - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_logits_are_kept() {
        let logits: Vec<f32> = (0..70).map(|i| i as f32).collect();
        let mut mask = Mask::new(&[u32::MAX, 0b10, 1 << 5 | 1 << 20]);
        mask.set(3, false);
        mask.set(64, true);
        mask.set(1000, true);
        let mut kept = vec![7.0];
        mask.keep(&logits, &mut kept);
        for (token, logit) in kept.iter().enumerate() {
            let allowed = (token < 32 && token != 3) || [33, 64, 69].contains(&token);
            assert_eq!((*logit == logits[token], mask.allows(token as u32)), (allowed, allowed), "{token}");
        }
        assert!(kept.len() == 70 && !mask.is_empty() && Mask::new(&[0, 0]).is_empty());
    }
}
