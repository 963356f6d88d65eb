//! Certificate rotation: the next step as a pure function of the Secrets' contents and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use slm_tls::{Identity, mint::Facts};

/// Identity of an authority: its certificate's subject.
pub(super) type Subject = Vec<u8>;

/// Contents of one role's Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafState {
    /// The role's certificate.
    pub(super) facts: Facts,
    /// Authorities in its trust bundle.
    pub(super) trusts: BTreeSet<Subject>,
    /// Time of the last change to the Secret.
    pub(super) changed: SystemTime,
}

/// Contents of all Secrets.
#[derive(Clone, Debug)]
pub(super) struct CertificateState {
    /// The authority that signs.
    pub(super) issuing: Option<Facts>,
    /// The authority that is already trusted and will sign next.
    pub(super) next: Option<Facts>,
    /// Authorities that signed and are still trusted.
    pub(super) former: BTreeSet<Subject>,
    /// Secrets of the roles that exist.
    pub(super) leaves: BTreeMap<Identity, LeafState>,
    /// Time until a changed Secret has reached every process.
    pub(super) propagation: Duration,
}

/// Update of a role's Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeafUpdate {
    /// A new certificate and the current trust bundle.
    NewCertificate,
    /// The same certificate with the current trust bundle.
    TrustOnly,
}

/// The next step of the rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RotationStep {
    /// Create an authority that is trusted but does not sign yet.
    Introduce,
    /// Let the next authority sign.
    Promote,
    /// Drop former authorities from the trust bundle.
    Retire,
    /// Write the Secrets of these roles.
    Publish(Vec<(Identity, LeafUpdate)>),
    /// Nothing is due before this time.
    Wait(SystemTime),
}

/// The next step. Call again with the state that it leads to.
pub(super) fn next(seen: &CertificateState, now: SystemTime) -> RotationStep {
    if seen.issuing.is_none() && seen.next.is_none() {
        return RotationStep::Introduce;
    }
    let publish = unpublished(seen, now);
    if !publish.is_empty() {
        return RotationStep::Publish(publish);
    }
    // From here on every Secret has the current trust bundle; what is unsettled only needs time.
    let settled = seen.leaves.values().map(|leaf| leaf.changed + seen.propagation).max();
    let settled = settled.filter(|settled| *settled > now);
    if seen.next.is_some() {
        return settled.map_or(RotationStep::Promote, RotationStep::Wait);
    }
    if !seen.former.is_empty() {
        return settled.map_or(RotationStep::Retire, RotationStep::Wait);
    }
    let authority_due = seen.issuing.as_ref().map(renewal);
    if authority_due.is_some_and(|due| due <= now) {
        return RotationStep::Introduce;
    }
    let due = seen.leaves.values().map(|leaf| renewal(&leaf.facts)).chain(authority_due).min();
    RotationStep::Wait(due.unwrap_or(now))
}

fn unpublished(seen: &CertificateState, now: SystemTime) -> Vec<(Identity, LeafUpdate)> {
    let bundle: BTreeSet<&Subject> = [&seen.issuing, &seen.next]
        .into_iter()
        .flatten()
        .map(|authority| &authority.subject)
        .chain(&seen.former)
        .collect();
    let due = |identity: &Identity| match (seen.leaves.get(identity), &seen.issuing) {
        (None, None) => None,
        (None, Some(_)) => Some(LeafUpdate::NewCertificate),
        (Some(leaf), Some(issuing)) if leaf.facts.issuer == issuing.subject && renewal(&leaf.facts) <= now => {
            Some(LeafUpdate::NewCertificate)
        }
        // A Secret lost together with the authority is the first that the new authority signs. Until it has reached
        // every process, some process still has a certificate that does not trust the new authority.
        (Some(leaf), Some(issuing)) if leaf.facts.issuer != issuing.subject && trusted(seen, issuing, now) => {
            Some(LeafUpdate::NewCertificate)
        }
        (Some(leaf), _) => (!leaf.trusts.iter().eq(bundle.iter().copied())).then_some(LeafUpdate::TrustOnly),
    };
    Identity::ALL.into_iter().filter_map(|identity| Some((identity, due(&identity)?))).collect()
}

/// Whether every process trusts what `issuing` signs. If a role's Secret is missing, what its processes have mounted is
/// unknown.
fn trusted(seen: &CertificateState, issuing: &Facts, now: SystemTime) -> bool {
    let has_reached = |leaf: &LeafState| leaf.changed + seen.propagation <= now;
    let trusts = |leaf: &LeafState| leaf.trusts.contains(&issuing.subject) && has_reached(leaf);
    Identity::ALL.iter().all(|identity| seen.leaves.get(identity).is_some_and(trusts))
}

/// Renewal time: after two thirds of the lifetime. The last third is left for delays.
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

    fn leaves(issuer: &str, trusts: &[&str]) -> BTreeMap<Identity, LeafState> {
        let trusts: BTreeSet<Subject> = trusts.iter().map(|subject| subject.as_bytes().to_vec()).collect();
        let leaf = LeafState { facts: facts("leaf", issuer, 300), trusts, changed: at(1_000) };
        Identity::ALL.into_iter().map(|identity| (identity, leaf.clone())).collect()
    }

    fn without_worker(issuer: &str, trusts: &[&str]) -> BTreeMap<Identity, LeafState> {
        let mut leaves = leaves(issuer, trusts);
        leaves.remove(&Identity::Worker);
        leaves
    }

    /// Made at 1,300, when the others were not changed for long.
    fn with_new_worker() -> BTreeMap<Identity, LeafState> {
        let mut all = without_worker("a", &["a", "b"]);
        let mut worker = leaves("b", &["a", "b"])[&Identity::Router].clone();
        worker.changed = at(1_300);
        worker.facts.until = at(9_000);
        all.insert(Identity::Worker, worker);
        all
    }

    fn seen(issuing: &str, next: &str, former: &str, leaves: BTreeMap<Identity, LeafState>) -> CertificateState {
        let authority = |name: &str| Some(facts(name, name, 9_000)).filter(|_| !name.is_empty());
        CertificateState {
            issuing: authority(issuing),
            next: authority(next),
            former: Some(former.into()).filter(|_| !former.is_empty()).into_iter().collect(),
            leaves,
            propagation: Duration::from_secs(60),
        }
    }

    fn all(leaf: LeafUpdate) -> RotationStep {
        RotationStep::Publish(Identity::ALL.map(|identity| (identity, leaf)).to_vec())
    }

    #[test]
    fn what_is_due_when() {
        let none = BTreeMap::new;
        let table = [
            // A new swarm: no process has to be waited for.
            (seen("", "", "", none()), 1_000, RotationStep::Introduce),
            (seen("", "a", "", none()), 1_000, RotationStep::Promote),
            (seen("a", "", "", none()), 1_000, all(LeafUpdate::NewCertificate)),
            // Two thirds of a certificate's life.
            (seen("a", "", "", leaves("a", &["a"])), 1_199, RotationStep::Wait(at(1_200))),
            (seen("a", "", "", leaves("a", &["a"])), 1_200, all(LeafUpdate::NewCertificate)),
            // A new authority: trusted, waited for, signing, waited for, alone.
            (seen("a", "b", "", leaves("a", &["a"])), 1_100, all(LeafUpdate::TrustOnly)),
            (seen("a", "b", "", leaves("a", &["a", "b"])), 1_059, RotationStep::Wait(at(1_060))),
            (seen("a", "b", "", leaves("a", &["a", "b"])), 1_060, RotationStep::Promote),
            (seen("b", "", "a", leaves("a", &["a", "b"])), 1_060, all(LeafUpdate::NewCertificate)),
            (seen("b", "", "a", leaves("b", &["a", "b"])), 1_059, RotationStep::Wait(at(1_060))),
            (seen("b", "", "a", leaves("b", &["a", "b"])), 1_060, RotationStep::Retire),
            (seen("b", "", "", leaves("b", &["a", "b"])), 1_060, all(LeafUpdate::TrustOnly)),
            // The authority was deleted: the certificates live on, and a new one is introduced beside it.
            (seen("", "", "a", leaves("a", &["a"])), 1_100, RotationStep::Introduce),
            (seen("", "b", "a", leaves("a", &["a"])), 1_250, all(LeafUpdate::TrustOnly)),
            (seen("", "b", "a", leaves("a", &["a", "b"])), 1_059, RotationStep::Wait(at(1_060))),
            (seen("", "b", "a", leaves("a", &["a", "b"])), 1_250, RotationStep::Promote),
            // The same for the worker's Secret: other certificates are reissued only when every process has it.
            (
                seen("b", "", "a", without_worker("a", &["a", "b"])),
                1_300,
                RotationStep::Publish(vec![(Identity::Worker, LeafUpdate::NewCertificate)]),
            ),
            (seen("b", "", "a", with_new_worker()), 1_359, RotationStep::Wait(at(1_360))),
            (
                seen("b", "", "a", with_new_worker()),
                1_360,
                RotationStep::Publish(vec![
                    (Identity::Operator, LeafUpdate::NewCertificate),
                    (Identity::Router, LeafUpdate::NewCertificate),
                    (Identity::Egress, LeafUpdate::NewCertificate),
                ]),
            ),
        ];
        for (seen, now, expected) in table {
            assert_eq!(next(&seen, at(now)), expected, "{seen:?} at {now}");
        }
    }

    /// So does one of a role that an older release did not have: a swarm that is upgraded gets it alone.
    #[test]
    fn a_deleted_secret_comes_back_and_the_others_stay() {
        for identity in [Identity::Router, Identity::Egress] {
            let mut without = leaves("a", &["a"]);
            without.remove(&identity);
            let step = next(&seen("a", "", "", without), at(1_100));
            assert_eq!(step, RotationStep::Publish(vec![(identity, LeafUpdate::NewCertificate)]));
        }
    }

    #[test]
    fn an_authority_is_renewed_too() {
        let mut fresh = leaves("a", &["a"]);
        for leaf in fresh.values_mut() {
            leaf.facts = Facts { made: at(6_900), until: at(7_200), ..leaf.facts.clone() };
        }
        assert_eq!(next(&seen("a", "", "", fresh.clone()), at(6_999)), RotationStep::Wait(at(7_000)));
        assert_eq!(next(&seen("a", "", "", fresh), at(7_000)), RotationStep::Introduce);
    }
}
