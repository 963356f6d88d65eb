//! Simulation of a worker with few slots and many faults, under changing desired state. At the end it has the desired adapters,
//! whatever went wrong on the way, and has never unloaded one that was to be kept.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};
use tonic::Status;

use crate::{AdapterAction, DesiredAdapters, Holdings, Version, next_actions};

const NAMES: [&str; 4] = ["a", "b", "c", "kept"];
const SLOTS: usize = 5;
const ROUNDS: usize = 200;

/// A worker, simulated.
#[derive(Default)]
struct Worker {
    versions: Vec<AdapterState>,
    asked: Vec<AdapterAction>,
}

impl Worker {
    fn state(&self) -> WorkerState {
        WorkerState { adapters: self.versions.clone(), ..Default::default() }
    }

    fn load(&mut self, name: &str, version: &Version) -> Result<(), Status> {
        if self.versions.len() == SLOTS {
            return Err(Status::resource_exhausted("all slots are taken"));
        }
        self.retire(name, None);
        self.versions.push(AdapterState {
            name: name.to_owned(),
            source: version.source.clone(),
            digest: format!("sha256:{}", version.source),
            phase: AdapterPhase::Serving.into(),
            scale: version.scale,
            ..Default::default()
        });
        Ok(())
    }

    /// Whether there was one, of `digest` where that is given.
    fn retire(&mut self, name: &str, digest: Option<&str>) -> bool {
        let mut versions = self.versions.iter_mut();
        let found = versions.find(|version| version.name == name && version.phase() == AdapterPhase::Serving);
        let found = found.filter(|version| digest.is_none_or(|digest| version.digest == digest));
        found.map(|version| version.set_phase(AdapterPhase::Retiring)).is_some()
    }

    /// A load of this name that waits for its answer is cancelled: its caller never hears of it. Half of the time that
    /// comes too late, and it was carried out. Gives the version that was waited for.
    fn cancel(&mut self, name: &str, random: &mut ChaCha8Rng) -> Option<Version> {
        let found = self
            .asked
            .iter()
            .position(|other| matches!(other, AdapterAction::Load { name: other, .. } if other == name));
        let AdapterAction::Load { version, .. } = self.asked.remove(found?) else { return None };
        if random.random_bool(0.5) {
            let _ = self.load(name, &version);
        }
        Some(version)
    }

    /// Answers the oldest request.
    fn answer(&mut self, random: &mut ChaCha8Rng, fails: f64, holdings: &mut Holdings, now: Instant) {
        if self.asked.is_empty() {
            return;
        }
        let broken = random.random_bool(fails);
        let away = || Err(Status::unavailable("connection reset"));
        match self.asked.remove(0) {
            AdapterAction::Load { name, version } => {
                let outcome = if broken { away() } else { self.load(&name, &version) };
                holdings.loaded(&name, &version, outcome, now);
            }
            AdapterAction::Cancel { .. } => {}
            AdapterAction::Unload { name, digest } => {
                assert_ne!(name, "kept");
                let there = || Status::not_found("no such version");
                let outcome =
                    if broken { away() } else { self.retire(&name, Some(&digest)).then_some(()).ok_or_else(there) };
                holdings.unloaded(&name, &digest, outcome, now);
            }
        }
    }
}

fn wishes(random: &mut ChaCha8Rng) -> DesiredAdapters {
    let mut wanted = BTreeMap::new();
    for name in NAMES {
        let number = random.random_range(0..3);
        if number > 0 {
            let version = Version { source: format!("{name}:{number}"), digest: None, scale: 1.0, pinned: false };
            wanted.insert(name.to_owned(), version);
        }
    }
    wanted
}

#[test]
fn a_worker_ends_up_with_what_is_wanted() {
    for seed in 0..200 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut worker, mut holdings, mut wanted) = (Worker::default(), Holdings::default(), DesiredAdapters::new());
        let mut now = Instant::now();
        for round in 0..ROUNDS {
            let calm = round >= ROUNDS / 2;
            match random.random_range(0..8) {
                0 if !calm => wanted = wishes(&mut random),
                1 if !calm => {
                    // It died: nothing is left, and nobody hears of what it was asked for.
                    worker = Worker::default();
                    holdings.lost();
                }
                2 | 3 => worker.versions.retain(|version| version.phase() == AdapterPhase::Serving),
                _ => worker.answer(&mut random, if calm { 0.0 } else { 0.3 }, &mut holdings, now),
            }
            holdings.tell(&worker.state(), now);
            for action in next_actions(&wanted, &holdings, now, |name| name == "kept") {
                holdings.ask(&action, now);
                match &action {
                    AdapterAction::Load { name, version } => {
                        let former = worker.cancel(name, &mut random);
                        assert_ne!(former.as_ref(), Some(version), "asked for while it runs, seed {seed}");
                        worker.asked.push(action);
                    }
                    AdapterAction::Cancel { name } => drop(worker.cancel(name, &mut random)),
                    AdapterAction::Unload { .. } => worker.asked.push(action),
                }
            }
            // Calm is long enough for every pause to end.
            now += Duration::from_secs(if calm { 60 } else { random.random_range(0..3) });
        }
        for (name, resident) in &holdings.resident {
            assert!(wanted.get(name).is_some_and(|version| version.is(resident)) || name == "kept", "seed {seed}");
        }
        assert!(wanted.keys().all(|name| holdings.resident.contains_key(name)), "seed {seed}");
    }
}
