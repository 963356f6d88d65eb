//! Which adapters are loaded, under which name, in which slot.
//!
//! A name points to one version, an [`AdapterLease`]; loading under a name that exists repoints it. A request takes a
//! lease when it arrives and keeps it to its end, so it never sees two versions; the slot of a version that no name
//! and no request holds any more is free again. The table that the backend reads knows slots only.

mod loaded;

#[cfg(not(feature = "shuttle"))]
use std::sync::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
#[cfg(feature = "shuttle")]
use shuttle::sync::{Mutex, MutexGuard};
use slm_convert::peft::AdapterChat;
use slm_head::Head;

pub use loaded::{LoadedAdapter, PrepareError};

use crate::embed::Readout;

/// What the backend sees: adapters by slot.
#[derive(Debug)]
pub struct AdapterTable {
    slots: Box<[ArcSwapOption<LoadedAdapter>]>,
}

impl AdapterTable {
    /// A table of `slots` empty slots.
    pub fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// Puts an adapter into `slot`, or empties it.
    pub(crate) fn set(&self, slot: usize, adapter: Option<Arc<LoadedAdapter>>) {
        // Shuttle chooses anew who goes on where a lock is taken, and this takes none.
        #[cfg(feature = "shuttle")]
        shuttle::thread::yield_now();
        if let Some(place) = self.slots.get(slot) {
            place.store(adapter);
        }
    }

    /// The adapter in `slot`.
    pub fn get(&self, slot: usize) -> Option<Arc<LoadedAdapter>> {
        self.slots.get(slot)?.load_full()
    }
}

/// What is known of one loaded version.
#[derive(Debug, Clone)]
pub struct AdapterInfo {
    /// Name that requests use.
    pub name: String,
    /// `sha256:…` of its files: the version's identity.
    pub digest: String,
    /// Where it came from, as it was asked for.
    pub source: String,
    /// Digest of the artifact as it travelled; empty for files in place.
    pub source_digest: String,
    /// Multiplies the adapter's own scaling.
    pub scale: f32,
    /// Largest rank of any module.
    pub rank_max: usize,
    /// Modules it changes.
    pub target_modules: Vec<String>,
    /// Time it took to read, check and pack it.
    pub load_time: Duration,
    /// When it became usable.
    pub loaded_at: SystemTime,
    /// How requests to it differ from those to its base.
    pub chat: AdapterChat,
    /// What states become with it, if it has a head of its own.
    pub(crate) readout: Option<Arc<Readout>>,
    /// What its vectors say of texts, if it has the head of a route.
    pub(crate) head: Option<Arc<Head>>,
}

impl AdapterInfo {
    /// Of `adapter` under that name, loaded now from files in place.
    pub fn new(name: &str, adapter: &LoadedAdapter, scale: f32, load_time: Duration) -> Self {
        Self {
            name: name.to_owned(),
            digest: adapter.digest().to_owned(),
            source: String::new(),
            source_digest: String::new(),
            scale,
            rank_max: adapter.rank_max(),
            target_modules: adapter.target_modules().to_vec(),
            load_time,
            loaded_at: SystemTime::now(),
            chat: AdapterChat::default(),
            readout: None,
            head: None,
        }
    }
}

/// One version of an adapter, in its slot as long as anybody holds this.
#[derive(Debug)]
pub struct AdapterLease {
    /// What it is.
    pub info: AdapterInfo,
    /// Counts up with every load.
    pub generation: u64,
    /// Bytes that its matrices take.
    pub bytes: u64,
    slot: usize,
    registry: Arc<Shared>,
}

impl AdapterLease {
    /// Its slot in the table.
    pub fn slot(&self) -> usize {
        self.slot
    }
}

impl Drop for AdapterLease {
    fn drop(&mut self) {
        self.registry.table.set(self.slot, None);
        self.registry.lock().free.push(self.slot);
        self.registry.notify();
    }
}

/// A version that was loaded does not get its name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    /// As many names as the model allows.
    #[error("all {slots} adapter slots hold other adapters; unload one or raise spec.adapters.slots of the model")]
    Full {
        /// Names allowed.
        slots: usize,
    },
    /// Old versions are still in use.
    #[error("{retiring} replaced adapter versions are still used by running requests; try again when they have ended")]
    Retiring {
        /// Versions that wait for their requests.
        retiring: usize,
    },
    /// Its load is not the last word on the name any more.
    #[error("the load of `{name}` was cancelled, or another call for this name came after it")]
    Superseded {
        /// The name.
        name: String,
    },
}

/// A load in progress. Dropping it cancels the load: what is still done for it is not published.
#[derive(Debug)]
pub struct LoadTicket {
    name: String,
    number: u64,
    registry: Arc<Shared>,
}

/// Which load it was that brought something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load(u64);

impl LoadTicket {
    /// This load, to publish by.
    pub fn load(&self) -> Load {
        Load(self.number)
    }

    /// Whether it would still be published.
    pub fn is_current(&self) -> bool {
        self.registry.lock().loads.get(&self.name) == Some(&self.number)
    }
}

impl Drop for LoadTicket {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if state.loads.get(&self.name) == Some(&self.number) {
            state.loads.remove(&self.name);
        }
    }
}

/// The loaded adapters of one worker.
#[derive(Debug, Clone)]
pub struct Adapters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Arc<AdapterTable>,
    names_max: usize,
    generation: AtomicU64,
    changed: tokio::sync::watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    names: BTreeMap<String, Arc<AdapterLease>>,
    /// Versions without a name, until their last request ends.
    retiring: Vec<Weak<AdapterLease>>,
    free: Vec<usize>,
    /// The last load of each name that is being loaded.
    loads: HashMap<String, u64>,
    loads_begun: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// A version and how many requests use it.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The version.
    pub info: AdapterInfo,
    /// Its load number.
    pub generation: u64,
    /// Bytes that its matrices take.
    pub bytes: u64,
    /// Requests that hold it.
    pub requests: usize,
    /// Whether its name still points to it.
    pub serving: bool,
}

impl Adapters {
    /// Room for `names_max` names, and for `retiring_max` replaced versions that running requests still use.
    pub fn new(names_max: usize, retiring_max: usize) -> Self {
        let slots = names_max + retiring_max;
        let state = State {
            names: BTreeMap::new(),
            retiring: Vec::new(),
            free: (0..slots).rev().collect(),
            loads: HashMap::new(),
            loads_begun: 0,
        };
        let shared = Shared {
            table: Arc::new(AdapterTable::new(slots)),
            names_max,
            generation: AtomicU64::new(0),
            changed: tokio::sync::watch::Sender::new(0),
            state: Mutex::new(state),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The table for the operator.
    pub fn table(&self) -> Arc<AdapterTable> {
        self.shared.table.clone()
    }

    /// Changes whenever a version comes, goes, or loses its name.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Names allowed, and how many are taken.
    pub fn slots(&self) -> (usize, usize) {
        (self.shared.names_max, self.shared.lock().names.len())
    }

    /// A load of `name` begins: earlier ones that still go on will not be published any more, nor will this one once the
    /// ticket is dropped.
    pub fn begin_load(&self, name: &str) -> LoadTicket {
        let mut state = self.shared.lock();
        state.loads_begun += 1;
        let number = state.loads_begun;
        state.loads.insert(name.to_owned(), number);
        LoadTicket { name: name.to_owned(), number, registry: self.shared.clone() }
    }

    /// Makes `adapter` what `info.name` means from now on.
    pub fn publish(
        &self,
        info: AdapterInfo,
        adapter: impl Into<LoadedAdapter>,
    ) -> Result<Arc<AdapterLease>, PublishError> {
        let ticket = self.begin_load(&info.name);
        self.publish_loaded(ticket.load(), info, adapter)
    }

    /// Makes `adapter`, which `load` brought, what `info.name` means from now on.
    pub fn publish_loaded(
        &self,
        load: Load,
        info: AdapterInfo,
        adapter: impl Into<LoadedAdapter>,
    ) -> Result<Arc<AdapterLease>, PublishError> {
        let adapter = adapter.into();
        let shared = &self.shared;
        let mut state = shared.lock();
        if state.loads.get(&info.name) != Some(&load.0) {
            return Err(PublishError::Superseded { name: info.name });
        }
        if !state.names.contains_key(&info.name) && state.names.len() >= shared.names_max {
            return Err(PublishError::Full { slots: shared.names_max });
        }
        let Some(slot) = state.free.pop() else {
            let retiring = state.retiring.iter().filter(|version| version.strong_count() > 0).count();
            return Err(PublishError::Retiring { retiring });
        };
        let name = info.name.clone();
        let lease = Arc::new(AdapterLease {
            info,
            generation: shared.generation.fetch_add(1, Ordering::Relaxed) + 1,
            bytes: adapter.bytes(),
            slot,
            registry: shared.clone(),
        });
        shared.table.set(slot, Some(Arc::new(adapter)));
        let replaced = state.names.insert(name, lease.clone());
        state.retire(replaced.as_ref());
        // The old version may go with this very drop, which takes the lock.
        drop(state);
        drop(replaced);
        shared.notify();
        Ok(lease)
    }

    /// Takes the name away. `digest` limits it to that version; without one, loads that go on are not published either.
    /// `false`: no such name (or version).
    pub fn unload(&self, name: &str, digest: Option<&str>) -> bool {
        let mut state = self.shared.lock();
        if digest.is_none() {
            state.loads.remove(name);
        }
        let meant = |lease: &Arc<AdapterLease>| digest.is_none_or(|digest| digest == lease.info.digest);
        if !state.names.get(name).is_some_and(meant) {
            return false;
        }
        let removed = state.names.remove(name);
        state.retire(removed.as_ref());
        drop(state);
        drop(removed);
        self.shared.notify();
        true
    }

    /// The version that `name` means now.
    pub fn lease(&self, name: &str) -> Option<Arc<AdapterLease>> {
        self.shared.lock().names.get(name).cloned()
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().names.keys().cloned().collect()
    }

    /// Every version that holds a slot, named ones first.
    pub fn residents(&self) -> Vec<Resident> {
        let mut state = self.shared.lock();
        state.retiring.retain(|version| version.strong_count() > 0);
        let resident = |lease: &Arc<AdapterLease>, serving: bool, others: usize| Resident {
            info: lease.info.clone(),
            generation: lease.generation,
            bytes: lease.bytes,
            requests: Arc::strong_count(lease) - others,
            serving,
        };
        // Besides requests, a named version is held by its name, and a retiring one by the upgrade made here.
        let named: Vec<_> = state.names.values().map(|lease| resident(lease, true, 1)).collect();
        let retiring: Vec<Arc<AdapterLease>> = state.retiring.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        named.into_iter().chain(retiring.iter().map(|lease| resident(lease, false, 1))).collect()
    }
}

impl State {
    fn retire(&mut self, version: Option<&Arc<AdapterLease>>) {
        self.retiring.retain(|version| version.strong_count() > 0);
        self.retiring.extend(version.map(Arc::downgrade));
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
#[cfg(test)]
mod tests;
