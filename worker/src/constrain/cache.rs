//! Compiled rules, and refused ones, within bounds; those that were asked for longest ago go first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{ConstraintError, Prototype, Rule};

/// Bound on the rules.
const RULES_MAX: usize = 128;
/// Bound on their bytes.
const BYTES_MAX: usize = 64 << 20;
/// Bytes of a compiled rule for each byte of its text, besides what its lexer learnt.
const BYTES_PER_BYTE: usize = 8;

type Made = Result<Arc<Prototype>, ConstraintError>;

#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    rules: HashMap<Rule, Entry>,
    /// Requests so far.
    clock: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whoever asks while another compiles waits.
    made: Arc<OnceLock<Made>>,
    used: u64,
}

impl Cache {
    /// A rule that was compiled or refused before.
    pub(super) fn get(&self, rule: &Rule) -> Option<Made> {
        let mut entries = self.lock();
        entries.clock += 1;
        let clock = entries.clock;
        let entry = entries.rules.get_mut(rule)?;
        entry.used = clock;
        let made = entry.made.get()?.clone();
        if made.as_ref().is_ok_and(|prototype| prototype.is_spoiled()) {
            entries.rules.remove(rule);
            return None;
        }
        Some(made)
    }

    /// The rule, by `make` if nobody has asked for it before.
    pub(super) fn get_or_make(&self, rule: &Rule, make: impl FnOnce() -> Made) -> Made {
        if let Some(made) = self.get(rule) {
            return made;
        }
        let cell = {
            let mut entries = self.lock();
            let used = entries.clock;
            let entry = entries.rules.entry(rule.clone()).or_default();
            entry.used = used;
            entry.made.clone()
        };
        let made = cell.get_or_init(make).clone();
        self.lock().shrink(rule);
        made
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().rules.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Drops rules beyond the bounds, but never `newest`.
    fn shrink(&mut self, newest: &Rule) {
        let weigh = |(rule, entry): (&Rule, &Entry)| {
            let learnt = entry.made.get().and_then(|made| made.as_ref().ok()).map_or(0, |made| made.learnt_bytes());
            rule.bytes() * BYTES_PER_BYTE + learnt
        };
        let mut bytes: usize = self.rules.iter().map(weigh).sum();
        while self.rules.len() > RULES_MAX || bytes > BYTES_MAX {
            let others = self.rules.iter().filter(|(rule, _)| *rule != newest);
            let Some((oldest, _)) = others.min_by_key(|(_, entry)| entry.used) else { return };
            let oldest = oldest.clone();
            if let Some(entry) = self.rules.remove(&oldest) {
                bytes = bytes.saturating_sub(weigh((&oldest, &entry)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> ConstraintError {
        ConstraintError::Refused { field: "regex", why: text.to_owned() }
    }

    #[test]
    fn a_rule_is_made_once_and_the_oldest_go_first() {
        let cache = Cache::default();
        let rule = |index: usize| Rule::Regex(index.to_string());
        for index in 0..RULES_MAX {
            cache.get_or_make(&rule(index), || Err(refused("first"))).unwrap_err();
        }
        let again = cache.get_or_make(&rule(0), || Err(refused("second"))).unwrap_err();
        assert_eq!(again, refused("first"));
        cache.get_or_make(&rule(RULES_MAX), || Err(refused("first"))).unwrap_err();
        assert_eq!(cache.len(), RULES_MAX);
        assert!(cache.get(&rule(0)).is_some() && cache.get(&rule(1)).is_none(), "0 was asked for after 1");
    }

    #[test]
    fn texts_are_bounded_together() {
        let cache = Cache::default();
        let large = |index: usize| Rule::Schema(index.to_string() + &"x".repeat(BYTES_MAX / BYTES_PER_BYTE / 4));
        for index in 0..9 {
            cache.get_or_make(&large(index), || Err(refused("large"))).unwrap_err();
        }
        assert_eq!(cache.len(), 3);
    }
}
