//! Lookup of tokens and of the names that their holders may use. Pure.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use slm_crds::route::DataPolicy;
use subtle::ConstantTimeEq as _;

use crate::quota::CallerLimits;

/// SHA-256 of a token. The tokens themselves are not kept.
pub(super) type Hash = [u8; 32];

/// All accepted tokens.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(Hash, Caller)>);

/// The caller of a request. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    name: Option<Arc<str>>,
    /// Group or name of the token; empty on a router without tokens.
    tenant: Arc<str>,
    priority_min: i32,
    models: Models,
    data_policy: DataPolicy,
    limits: Arc<CallerLimits>,
    weight: u32,
}

/// The tenant of copies of requests. Those of callers have a colon, or are empty.
const SHADOW: &str = "shadow";

/// A token's entry, without the token.
#[derive(Clone, Debug)]
pub(super) struct Grant<'e> {
    pub(super) name: &'e str,
    /// Tokens of one group are one tenant.
    pub(super) group: Option<&'e str>,
    /// The most urgent priority that a request may have: the lowest number.
    pub(super) priority_min: i32,
    pub(super) models: Models,
    /// The laxest policy of its requests.
    pub(super) data_policy: DataPolicy,
    pub(super) limits: CallerLimits,
    /// Its tenant's share of busy workers.
    pub(super) weight: u32,
}

/// The names that a caller may use.
#[derive(Clone, Debug)]
pub(super) enum Models {
    All,
    These(Arc<[Pattern]>),
}

/// A name, or one with `*` for any number of any characters.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Box<str>);

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

    /// The holder of a token. Takes the same time for any token: every entry is compared, each in constant time.
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
    pub(super) fn new(grant: Grant<'_>) -> Self {
        // Names have no colon: no token is taken for a group.
        let tenant = match grant.group {
            Some(group) => format!("group:{group}"),
            None => format!("token:{}", grant.name),
        };
        Self {
            name: Some(Arc::from(grant.name)),
            tenant: tenant.into(),
            priority_min: grant.priority_min,
            models: grant.models,
            data_policy: grant.data_policy,
            limits: grant.limits.into(),
            weight: grant.weight,
        }
    }

    /// The caller of a router without tokens: everybody is one tenant, and its requests have the priority that they ask for.
    pub(crate) fn anybody() -> Self {
        let data_policy = DataPolicy::AllowExternal;
        let (tenant, limits) = (Arc::default(), Arc::default());
        Self { name: None, tenant, priority_min: i32::MIN, models: Models::All, data_policy, limits, weight: 1 }
    }

    /// The same caller, for copies of its requests: they come after everybody's, in a tenant of their own, and take nothing of its share.
    pub(crate) fn shadow(&self) -> Self {
        Self { tenant: SHADOW.into(), priority_min: i32::MAX, limits: Arc::default(), ..self.clone() }
    }

    /// Its tenant's share of busy workers.
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Limits of its requests.
    pub(crate) fn limits(&self) -> &Arc<CallerLimits> {
        &self.limits
    }

    /// The laxest data policy that its requests may have.
    pub(crate) fn data_policy(&self) -> DataPolicy {
        self.data_policy
    }

    /// The tenant, by which workers tell callers apart. The prefix cache is shared only within it.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The most urgent priority that its requests may have: the lowest number.
    pub(crate) fn priority_min(&self) -> i32 {
        self.priority_min
    }

    /// Its name in logs and metrics. `None` on a router without tokens.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// True when it may use this model, adapter or route.
    pub(crate) fn may(&self, name: &str) -> bool {
        match &self.models {
            Models::All => true,
            Models::These(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }
}

impl Pattern {
    pub(crate) fn new(glob: &str) -> Self {
        Self(glob.into())
    }

    /// The parts between the stars, each at the first place after the one before: linear but for what repeats itself.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let Some(mut left) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

#[cfg(test)]
impl Caller {
    pub(crate) fn of(name: &str, globs: &[&str]) -> Self {
        let patterns: Vec<Pattern> = globs.iter().map(|glob| Pattern::new(glob)).collect();
        Self::new(Grant {
            name,
            group: None,
            priority_min: 0,
            models: Models::These(patterns.into()),
            data_policy: DataPolicy::AllowExternal,
            limits: CallerLimits::default(),
            weight: 1,
        })
    }

    /// The same with other limits.
    pub(crate) fn limited(self, limits: CallerLimits) -> Self {
        Self { limits: limits.into(), ..self }
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
        let cases: [(&[&str], &str, bool); 18] = [
            (&["banking"], "banking", true),
            (&["banking"], "banking-2", false),
            (&["banking"], "my-banking", false),
            (&["support-*"], "support-en", true),
            (&["support-*"], "support", false),
            (&["*-en"], "support-en", true),
            (&["a*c*e"], "abcde", true),
            (&["a*c*e"], "abde", false),
            (&["a*c*e"], "ace", true),
            (&["a*a"], "a", false),
            (&["ab*ba"], "aba", false),
            (&["ab*ba"], "abba", true),
            (&["**"], "", true),
            (&["*a*"], "bab", true),
            (&["*a*"], "bbb", false),
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
