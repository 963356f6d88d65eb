//! Simulation of decades of certificate rotation: whichever Secret is deleted and whenever an operator ends, no process
//! meets a certificate that it does not trust or that has expired.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use slm_tls::{Identity, mint::Facts};

use super::rotation::{CertificateState, LeafState, LeafUpdate, RotationStep, next};

const TICK: Duration = Duration::from_secs(5);
const PROPAGATION: Duration = Duration::from_secs(60);
const LEAF: Duration = Duration::from_secs(600);
const AUTHORITY: Duration = Duration::from_secs(9_000);
/// Shortest interval between two deletions of the authority: a rotation needs some time.
const DELETION: Duration = Duration::from_secs(600);

type Leaves = BTreeMap<Identity, LeafState>;

/// The API server's contents.
struct World {
    now: SystemTime,
    seen: CertificateState,
    made: u32,
    retired: u32,
    /// Earlier contents by time, for Secrets that are mounted.
    history: Vec<(SystemTime, Leaves)>,
}

impl World {
    fn authority(&mut self) -> Facts {
        self.made += 1;
        let name = self.made.to_be_bytes().to_vec();
        Facts { made: self.now, until: self.now + AUTHORITY, subject: name.clone(), issuer: name }
    }

    fn take(&mut self, step: RotationStep) {
        match step {
            RotationStep::Introduce => self.seen.next = Some(self.authority()),
            RotationStep::Promote => {
                self.seen.former.extend(self.seen.issuing.take().map(|former| former.subject));
                self.seen.issuing = self.seen.next.take();
            }
            RotationStep::Retire => {
                self.seen.former.clear();
                self.retired += 1;
            }
            RotationStep::Publish(due) => due.into_iter().for_each(|(identity, leaf)| self.publish(identity, leaf)),
            RotationStep::Wait(_) => {}
        }
    }

    fn publish(&mut self, identity: Identity, leaf: LeafUpdate) {
        let facts = match leaf {
            LeafUpdate::TrustOnly => self.seen.leaves[&identity].facts.clone(),
            LeafUpdate::NewCertificate => Facts {
                made: self.now,
                until: self.now + LEAF,
                subject: identity.to_string().into(),
                issuer: self.seen.issuing.as_ref().expect("an issuing authority").subject.clone(),
            },
        };
        let signing = [&self.seen.issuing, &self.seen.next].into_iter().flatten();
        let trusts = signing.map(|authority| authority.subject.clone()).chain(self.seen.former.clone()).collect();
        self.seen.leaves.insert(identity, LeafState { facts, trusts, changed: self.now });
    }

    fn delete_authority(&mut self) {
        (self.seen.issuing, self.seen.next) = (None, None);
        self.seen.former = self.seen.leaves.values().flat_map(|leaf| leaf.trusts.clone()).collect();
    }

    /// A version of `identity`'s Secret that a pod may have now, not older than `seen_last`.
    fn mounted(&self, identity: Identity, seen_last: &mut usize, chance: &mut StdRng) -> LeafState {
        let overdue = self.history.iter().rposition(|(when, _)| *when + PROPAGATION <= self.now).unwrap_or(0);
        *seen_last = chance.random_range(overdue.max(*seen_last)..self.history.len());
        // A mounted Secret that is deleted stays mounted.
        let versions = self.history[..=*seen_last].iter().rev();
        versions.filter_map(|(_, leaves)| leaves.get(&identity)).next().expect("mounted").clone()
    }
}

fn check(now: SystemTime, caller: &LeafState, worker: &LeafState, seed: u64) {
    for (who, other) in [(caller, worker), (worker, caller)] {
        assert!(other.trusts.contains(&who.facts.issuer), "seed {seed}, {now:?}: {who:?} meets {other:?}");
        assert!(who.facts.until > now, "seed {seed}, {now:?}: {who:?} has expired");
    }
}

fn live(seed: u64) -> u32 {
    let mut chance = StdRng::seed_from_u64(seed);
    let seen = CertificateState {
        issuing: None,
        next: None,
        former: [].into(),
        leaves: Leaves::new(),
        propagation: PROPAGATION,
    };
    let mut world = World { now: UNIX_EPOCH + AUTHORITY, seen, made: 0, retired: 0, history: Vec::new() };
    let mut deleted = world.now;
    // Two callers, then those who are called.
    let [router, worker, egress] = [Identity::Router, Identity::Worker, Identity::Egress].map(|identity| (identity, 0));
    let mut pods = [router, router, worker, worker, egress];
    for _ in 0..10_000 {
        world.now += TICK;
        // An operator may end between any two steps; the next one starts a little later.
        for _ in 0..chance.random_range(0..4) {
            let step = next(&world.seen, world.now);
            world.take(step);
        }
        if world.seen.leaves.len() == Identity::ALL.len() || !world.history.is_empty() {
            world.history.push((world.now, world.seen.leaves.clone()));
            let mounted: Vec<LeafState> =
                pods.iter_mut().map(|(identity, seen_last)| world.mounted(*identity, seen_last, &mut chance)).collect();
            let own = world.seen.leaves.get(&Identity::Operator);
            for called in &mounted[2..] {
                mounted[..2].iter().chain(own).for_each(|caller| check(world.now, caller, called, seed));
            }
        }
        if world.now > deleted + DELETION && chance.random_bool(0.01) {
            deleted = world.now;
            world.delete_authority();
        } else if world.now > deleted + DELETION && chance.random_bool(0.01) {
            let identity = Identity::ALL[chance.random_range(0..Identity::ALL.len())];
            world.seen.leaves.remove(&identity);
        }
    }
    world.retired
}

#[test]
fn nobody_is_ever_refused() {
    for seed in 0..32 {
        let retired = live(seed);
        // Authorities must have come and gone for the test to mean anything.
        assert!(retired >= 5, "seed {seed}: {retired}");
    }
}
