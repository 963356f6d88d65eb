//! What of the certificates is due: a pure function of what the Secrets hold and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use slm_tls::{Identity, mint::Facts};

/// What of an authority tells it from others: its subject.
pub(super) type Subject = Vec<u8>;

/// The Secret of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafSeen {
    /// Its certificate.
    pub(super) facts: Facts,
    /// The authorities that it tells to trust.
    pub(super) trusts: BTreeSet<Subject>,
    /// When anything in it was last changed.
    pub(super) changed: SystemTime,
}

/// All Secrets.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Signs.
    pub(super) issuing: Option<Facts>,
    /// Is trusted and will sign.
    pub(super) next: Option<Facts>,
    /// Signed, and is still trusted.
    pub(super) former: BTreeSet<Subject>,
    /// Those that are there.
    pub(super) leaves: BTreeMap<Identity, LeafSeen>,
    /// How long a changed Secret takes to reach every process.
    pub(super) propagation: Duration,
}

/// How the Secret of a role is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// With a new certificate.
    New,
    /// With its certificate, and other authorities.
    Kept,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make an authority that is trusted, but does not sign.
    Introduce,
    /// Let it sign.
    Promote,
    /// Trust those that do not sign any more no longer.
    Retire,
    /// Write Secrets of roles.
    Publish(Vec<(Identity, Leaf)>),
    /// Nothing before that moment.
    Wait(SystemTime),
}

/// What to do now. Each step makes another state; call it again with that.
pub(super) fn next(seen: &Seen, now: SystemTime) -> Step {
    if seen.issuing.is_none() && seen.next.is_none() {
        return Step::Introduce;
    }
    let publish = unpublished(seen, now);
    if !publish.is_empty() {
        return Step::Publish(publish);
    }
    // From here on every Secret has the authorities of now, and what is not settled only needs time.
    let settled = seen.leaves.values().map(|leaf| leaf.changed + seen.propagation).max();
    let settled = settled.filter(|settled| *settled > now);
    if seen.next.is_some() {
        return settled.map_or(Step::Promote, Step::Wait);
    }
    if !seen.former.is_empty() {
        return settled.map_or(Step::Retire, Step::Wait);
    }
    let authority_due = seen.issuing.as_ref().map(renewal);
    if authority_due.is_some_and(|due| due <= now) {
        return Step::Introduce;
    }
    let due = seen.leaves.values().map(|leaf| renewal(&leaf.facts)).chain(authority_due).min();
    Step::Wait(due.unwrap_or(now))
}

fn unpublished(seen: &Seen, now: SystemTime) -> Vec<(Identity, Leaf)> {
    let bundle: BTreeSet<&Subject> = [&seen.issuing, &seen.next]
        .into_iter()
        .flatten()
        .map(|authority| &authority.subject)
        .chain(&seen.former)
        .collect();
    let due = |identity: &Identity| match (seen.leaves.get(identity), &seen.issuing) {
        (None, None) => None,
        (None, Some(_)) => Some(Leaf::New),
        (Some(leaf), Some(issuing)) if leaf.facts.issuer == issuing.subject && renewal(&leaf.facts) <= now => {
            Some(Leaf::New)
        }
        // A Secret that was lost together with the authority is the first that the new one signs: until it has reached
        // everybody, somebody still has one that does not trust what the new one signs.
        (Some(leaf), Some(issuing)) if leaf.facts.issuer != issuing.subject && trusted(seen, issuing, now) => {
            Some(Leaf::New)
        }
        (Some(leaf), _) => (!leaf.trusts.iter().eq(bundle.iter().copied())).then_some(Leaf::Kept),
    };
    Identity::ALL.into_iter().filter_map(|identity| Some((identity, due(&identity)?))).collect()
}

/// Whether everybody trusts what `issuing` signs. Of whom there is no Secret, nobody knows what they have mounted.
fn trusted(seen: &Seen, issuing: &Facts, now: SystemTime) -> bool {
    let has_reached = |leaf: &LeafSeen| leaf.changed + seen.propagation <= now;
    let trusts = |leaf: &LeafSeen| leaf.trusts.contains(&issuing.subject) && has_reached(leaf);
    Identity::ALL.iter().all(|identity| seen.leaves.get(identity).is_some_and(trusts))
}

/// When two thirds of its life are over: the last one is there for those who come late.
fn renewal(facts: &Facts) -> SystemTime {
    facts.made + facts.until.duration_since(facts.made).unwrap_or_default() * 2 / 3
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Made at 1,000.
    fn facts(subject: &str, issuer: &str, lifetime: u64) -> Facts {
        Facts { made: at(1_000), until: at(1_000 + lifetime), subject: subject.into(), issuer: issuer.into() }
    }

    fn leaves(issuer: &str, trusts: &[&str]) -> BTreeMap<Identity, LeafSeen> {
        let trusts: BTreeSet<Subject> = trusts.iter().map(|subject| subject.as_bytes().to_vec()).collect();
        let leaf = LeafSeen { facts: facts("leaf", issuer, 300), trusts, changed: at(1_000) };
        Identity::ALL.into_iter().map(|identity| (identity, leaf.clone())).collect()
    }

    fn without_worker(issuer: &str, trusts: &[&str]) -> BTreeMap<Identity, LeafSeen> {
        let mut leaves = leaves(issuer, trusts);
        leaves.remove(&Identity::Worker);
        leaves
    }

    /// Made at 1,300, when the others were not changed for long.
    fn with_new_worker() -> BTreeMap<Identity, LeafSeen> {
        let mut all = without_worker("a", &["a", "b"]);
        let mut worker = leaves("b", &["a", "b"])[&Identity::Router].clone();
        worker.changed = at(1_300);
        worker.facts.until = at(9_000);
        all.insert(Identity::Worker, worker);
        all
    }

    fn seen(issuing: &str, next: &str, former: &str, leaves: BTreeMap<Identity, LeafSeen>) -> Seen {
        let authority = |name: &str| Some(facts(name, name, 9_000)).filter(|_| !name.is_empty());
        Seen {
            issuing: authority(issuing),
            next: authority(next),
            former: Some(former.into()).filter(|_| !former.is_empty()).into_iter().collect(),
            leaves,
            propagation: Duration::from_secs(60),
        }
    }

    fn all(leaf: Leaf) -> Step {
        Step::Publish(Identity::ALL.map(|identity| (identity, leaf)).to_vec())
    }

    #[test]
    fn what_is_due_when() {
        let none = BTreeMap::new;
        let table = [
            // A new swarm: nobody has to be waited for.
            (seen("", "", "", none()), 1_000, Step::Introduce),
            (seen("", "a", "", none()), 1_000, Step::Promote),
            (seen("a", "", "", none()), 1_000, all(Leaf::New)),
            // Two thirds of a certificate's life.
            (seen("a", "", "", leaves("a", &["a"])), 1_199, Step::Wait(at(1_200))),
            (seen("a", "", "", leaves("a", &["a"])), 1_200, all(Leaf::New)),
            // A new authority: trusted, waited for, signing, waited for, alone.
            (seen("a", "b", "", leaves("a", &["a"])), 1_100, all(Leaf::Kept)),
            (seen("a", "b", "", leaves("a", &["a", "b"])), 1_059, Step::Wait(at(1_060))),
            (seen("a", "b", "", leaves("a", &["a", "b"])), 1_060, Step::Promote),
            (seen("b", "", "a", leaves("a", &["a", "b"])), 1_060, all(Leaf::New)),
            (seen("b", "", "a", leaves("b", &["a", "b"])), 1_059, Step::Wait(at(1_060))),
            (seen("b", "", "a", leaves("b", &["a", "b"])), 1_060, Step::Retire),
            (seen("b", "", "", leaves("b", &["a", "b"])), 1_060, all(Leaf::Kept)),
            // The authority was deleted: the certificates live on, and a new one is introduced beside it.
            (seen("", "", "a", leaves("a", &["a"])), 1_100, Step::Introduce),
            (seen("", "b", "a", leaves("a", &["a"])), 1_250, all(Leaf::Kept)),
            (seen("", "b", "a", leaves("a", &["a", "b"])), 1_059, Step::Wait(at(1_060))),
            (seen("", "b", "a", leaves("a", &["a", "b"])), 1_250, Step::Promote),
            // So was the worker's Secret: others are signed anew only when everybody has that one.
            (
                seen("b", "", "a", without_worker("a", &["a", "b"])),
                1_300,
                Step::Publish(vec![(Identity::Worker, Leaf::New)]),
            ),
            (seen("b", "", "a", with_new_worker()), 1_359, Step::Wait(at(1_360))),
            (
                seen("b", "", "a", with_new_worker()),
                1_360,
                Step::Publish(vec![(Identity::Operator, Leaf::New), (Identity::Router, Leaf::New)]),
            ),
        ];
        for (seen, now, expected) in table {
            assert_eq!(next(&seen, at(now)), expected, "{seen:?} at {now}");
        }
    }

    #[test]
    fn a_deleted_secret_comes_back_and_the_others_stay() {
        let mut without = leaves("a", &["a"]);
        without.remove(&Identity::Router);
        let step = next(&seen("a", "", "", without), at(1_100));
        assert_eq!(step, Step::Publish(vec![(Identity::Router, Leaf::New)]));
    }

    #[test]
    fn an_authority_is_renewed_too() {
        let mut fresh = leaves("a", &["a"]);
        for leaf in fresh.values_mut() {
            leaf.facts = Facts { made: at(6_900), until: at(7_200), ..leaf.facts.clone() };
        }
        assert_eq!(next(&seen("a", "", "", fresh.clone()), at(6_999)), Step::Wait(at(7_000)));
        assert_eq!(next(&seen("a", "", "", fresh), at(7_000)), Step::Introduce);
    }
}
