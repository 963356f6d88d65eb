//! A token to its caller, and a caller to what it may use. Pure.

use std::sync::Arc;

use regex::Regex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// SHA-256 of a token. The tokens themselves are not kept.
pub(super) type Hash = [u8; 32];

/// Every token that is taken.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(Hash, Caller)>);

/// Who a request is from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    name: Option<Arc<str>>,
    models: Models,
}

/// What a caller may name.
#[derive(Clone, Debug)]
pub(super) enum Models {
    All,
    These(Arc<[Pattern]>),
}

/// A name, or one with `*` for any number of any characters.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

pub(super) fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

impl Table {
    pub(super) fn push(&mut self, hash: Hash, caller: Caller) {
        self.0.push((hash, caller));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whose token this is. Takes as long for any token: every entry is looked at, and each in constant time.
    pub(super) fn caller(&self, token: &[u8]) -> Option<Caller> {
        let hash = hash(token);
        let mut found = None;
        for (entry, caller) in &self.0 {
            if bool::from(entry.ct_eq(&hash)) {
                found = Some(caller);
            }
        }
        found.cloned()
    }
}

impl Caller {
    pub(super) fn new(name: &str, models: Models) -> Self {
        Self { name: Some(Arc::from(name)), models }
    }

    /// Where nobody needs a token.
    pub(crate) fn anybody() -> Self {
        Self { name: None, models: Models::All }
    }

    /// As logs and metrics call it. `None` where nobody needs a token.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Whether it may name this model, adapter or route.
    pub(crate) fn may(&self, name: &str) -> bool {
        match &self.models {
            Models::All => true,
            Models::These(patterns) => patterns.iter().any(|pattern| pattern.0.is_match(name)),
        }
    }
}

impl Pattern {
    /// # Errors
    /// When it is larger than a regular expression may be.
    pub(super) fn new(glob: &str) -> Result<Self, regex::Error> {
        let parts: Vec<String> = glob.split('*').map(regex::escape).collect();
        Regex::new(&format!("^{}$", parts.join(".*"))).map(Self)
    }
}

#[cfg(test)]
impl Caller {
    pub(crate) fn of(name: &str, globs: &[&str]) -> Self {
        let patterns: Vec<Pattern> = globs.iter().map(|glob| Pattern::new(glob).expect(glob)).collect();
        Self::new(name, Models::These(patterns.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_callers() {
        let mut table = Table::default();
        table.push(hash(b"one"), Caller::of("first", &["a"]));
        table.push(hash(b"two"), Caller::of("second", &["b"]));
        let name =
            |token: &str| table.caller(token.as_bytes()).and_then(|caller| caller.name().map(ToString::to_string));
        let cases = [("one", Some("first")), ("two", Some("second")), ("on", None), ("", None), ("One", None)];
        for (token, expected) in cases {
            assert_eq!(name(token).as_deref(), expected, "{token}");
        }
    }

    #[test]
    fn what_callers_may_name() {
        let cases: [(&[&str], &str, bool); 10] = [
            (&["banking"], "banking", true),
            (&["banking"], "banking-2", false),
            (&["banking"], "my-banking", false),
            (&["support-*"], "support-en", true),
            (&["support-*"], "support", false),
            (&["*-en"], "support-en", true),
            (&["a*c*e"], "abcde", true),
            (&["a.c"], "abc", false),
            (&["x", "*"], "anything", true),
            (&["smol*"], "", false),
        ];
        for (globs, name, expected) in cases {
            assert_eq!(Caller::of("c", globs).may(name), expected, "{globs:?} {name}");
        }
        assert!(Caller::anybody().may("anything") && Caller::anybody().name().is_none());
    }
}
