//! Which adapters are loaded, under which name, and where their matrices are.
//!
//! A name points to one version, an [`AdapterVersion`]; loading under a name that exists repoints it. A request takes the
//! version when it arrives and keeps it to its end, so it never sees two versions. There may be more names than slots: a
//! version is in a slot of the table that the backend reads, or in the memory of the host up to a number of bytes, or in
//! files alone. Before a request runs, it takes an [`AdapterLease`] on the version's slot (`claim`), for which the
//! least recently used version leaves its own; the slot of a version that no name and no request holds any more is free.
//!
//! - `version`: versions, and leases on their slots;
//! - `slots`: which version has which slot, and who waits for one: pure;
//! - `host_cache`: versions in the memory of the host: pure;
//! - `table`, `loaded`: the matrices, in the form of the backend and of the host;
//! - `loads`: loads in progress; `metrics`: times and counts.
//!
//! Not here: where matrices come from when they are in no memory (`service::paging`).

mod host_cache;
mod loaded;
mod loads;
mod metrics;
mod slots;
mod table;
mod version;

#[cfg(not(feature = "shuttle"))]
use std::sync::{Mutex, MutexGuard};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

#[cfg(feature = "shuttle")]
use shuttle::sync::{Mutex, MutexGuard};

pub(crate) use self::metrics::AdapterMetrics;
use self::{
    host_cache::HostCache,
    loads::Loads,
    slots::{Claim, Generation, Slots, Ticket},
};
pub use self::{
    loaded::{HostAdapter, LoadedAdapter, PrepareError},
    loads::{Load, LoadTicket},
    table::AdapterTable,
    version::{AdapterInfo, AdapterLease, AdapterVersion},
};

/// Bound on names, whatever the number of slots: the state stream lists them all.
pub const NAMES_MAX: usize = 4096;

/// A version that was loaded does not get its name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    /// As many names as a worker may have.
    #[error(
        "this worker has {NAMES_MAX} adapters, as many as a worker can; unload one, or spread them with spec.placement.replicas"
    )]
    Full,
    /// No slot is free.
    #[error("none of the {slots} adapter slots is free; raise spec.adapters.slots of the model")]
    NoSlot {
        /// All slots.
        slots: usize,
    },
    /// Its load is not the last word on the name any more.
    #[error("the load of `{name}` was cancelled, or another call for this name came after it")]
    Superseded {
        /// The name.
        name: String,
    },
}

/// No slot will come free for an adapter: pinned ones have them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {slots} adapter slots hold pinned adapters; raise spec.adapters.slots of the model, or pin fewer adapters (spec.placement.pin)"
)]
pub struct AllPinned {
    /// All slots.
    pub slots: usize,
}

/// The loaded adapters of one worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Adapters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Arc<AdapterTable>,
    generation: AtomicU64,
    changed: tokio::sync::watch::Sender<u64>,
    slot_freed: tokio::sync::watch::Sender<u64>,
    metrics: AdapterMetrics,
    state: Mutex<State>,
    /// Taken last: no other lock is taken under it.
    host: Mutex<HostCache<HostAdapter>>,
}

#[derive(Debug)]
struct State {
    names: BTreeMap<String, Arc<AdapterVersion>>,
    /// Versions without a name, until their last request ends.
    retiring: Vec<Weak<AdapterVersion>>,
    slots: Slots,
    loads: Loads,
}

/// Where the matrices of a version are: the nearest place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In a slot.
    Slot,
    /// In the memory of the host.
    HostMemory,
    /// In files alone.
    Disk,
}

/// A version, where it is, and how many requests use it.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The version.
    pub version: Arc<AdapterVersion>,
    /// Requests that hold it.
    pub requests: usize,
    /// Whether its name still points to it.
    pub serving: bool,
    /// Where its matrices are.
    pub location: Location,
}

/// A slot that is reserved for a version, to be filled. Dropping it gives the slot up.
#[derive(Debug)]
pub struct Reservation {
    generation: Generation,
    slot: usize,
    /// Whether the slot still has to be given up.
    open: bool,
    registry: Arc<Shared>,
}

/// A request's place in the queue for slots, if it has one. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    ticket: Option<Ticket>,
    registry: Arc<Shared>,
}

/// Answer to a request for a version's slot.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// The version is in its slot.
    Leased(Arc<AdapterLease>),
    /// A slot is the version's, once it is filled.
    Reserved(Reservation),
    /// To be asked again after a change of slots.
    Wait,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> MutexGuard<'_, HostCache<HostAdapter>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn notify_waiting(&self) {
        self.slot_freed.send_modify(|count| *count += 1);
    }

    /// Ends a lease.
    fn release(&self, generation: Generation) {
        let mut state = self.lock();
        let freed = state.slots.release(generation);
        let idle = state.slots.leases(generation) == 0;
        let adapter = freed.map(|slot| self.table.set(slot, None));
        drop(state);
        if adapter.is_some() {
            self.notify();
        }
        if idle {
            self.notify_waiting();
        }
    }

    /// `version` left `slot`: its matrices stay in the memory of the host, if there is room.
    fn evicted(&self, version: Generation, slot: usize) {
        self.metrics.evictions.inc();
        let Some(adapter) = self.table.set(slot, None) else { return };
        let left = adapter.in_host_memory().map(|adapter| {
            let bytes = adapter.bytes();
            self.host().keep(version, adapter, bytes)
        });
        drop((adapter, left));
    }
}

impl Adapters {
    /// `named_max` slots, besides `retiring_max` for replaced versions that running requests still use, and room for
    /// adapters of `host_bytes_max` bytes in the memory of the host.
    pub fn new(named_max: usize, retiring_max: usize, host_bytes_max: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            retiring: Vec::new(),
            slots: Slots::new(named_max, retiring_max),
            loads: Loads::default(),
        };
        let shared = Shared {
            table: Arc::new(AdapterTable::new(named_max + retiring_max)),
            generation: AtomicU64::new(0),
            changed: tokio::sync::watch::Sender::new(0),
            slot_freed: tokio::sync::watch::Sender::new(0),
            metrics: AdapterMetrics::new(),
            state: Mutex::new(state),
            host: Mutex::new(HostCache::new(host_bytes_max)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The table for the backend.
    pub fn table(&self) -> Arc<AdapterTable> {
        self.shared.table.clone()
    }

    /// Changes whenever a version comes, goes, or loses its name.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Changes whenever a request that waits for a slot may have one.
    pub(crate) fn slot_freed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.slot_freed.subscribe()
    }

    /// Slots, and how many of them hold an adapter that has a name.
    pub fn slots(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.slots.named_max(), state.slots.named())
    }

    /// Times and counts of adapters that come and go.
    pub(crate) fn metrics(&self) -> &AdapterMetrics {
        &self.shared.metrics
    }

    /// A load of `name` begins: earlier ones that still go on will not be published any more, nor will this one once the
    /// ticket is dropped.
    pub fn begin_load(&self, name: &str) -> LoadTicket {
        let number = self.shared.lock().loads.begin(name);
        LoadTicket { name: name.to_owned(), number, registry: self.shared.clone() }
    }

    /// Reserves a slot for the version that is being loaded for `name`, if one is free or the version that it replaces has
    /// one. No other adapter leaves its slot for it.
    pub fn reserve(&self, name: &str) -> Option<Reservation> {
        let generation = self.next_generation();
        let mut state = self.shared.lock();
        let replaced = state.names.get(name).map(|version| version.generation);
        let slot = state.slots.reserve(generation, replaced)?;
        Some(Reservation { generation, slot, open: true, registry: self.shared.clone() })
    }

    fn next_generation(&self) -> Generation {
        self.shared.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes `adapter` what `info.name` means from now on, in a slot; with a lease on it.
    pub fn publish(
        &self,
        info: AdapterInfo,
        adapter: impl Into<LoadedAdapter>,
    ) -> Result<Arc<AdapterLease>, PublishError> {
        let ticket = self.begin_load(&info.name);
        let no_slot = || PublishError::NoSlot { slots: self.slots().0 };
        let reservation = self.reserve(&info.name).ok_or_else(no_slot)?;
        let adapter = adapter.into();
        let bytes = adapter.bytes();
        let version = self.publish_loaded(ticket.load(), info, bytes, Some((reservation, adapter)))?;
        match self.claim(&version, &mut self.waiter()) {
            Ok(Claimed::Leased(lease)) => Ok(lease),
            Ok(Claimed::Reserved(_) | Claimed::Wait) | Err(_) => Err(no_slot()),
        }
    }

    /// Makes what `load` brought, an adapter of `bytes`, what `info.name` means from now on: in the slot that was reserved for
    /// it, or in none yet.
    pub fn publish_loaded(
        &self,
        load: Load,
        info: AdapterInfo,
        bytes: u64,
        placed: Option<(Reservation, LoadedAdapter)>,
    ) -> Result<Arc<AdapterVersion>, PublishError> {
        let shared = &self.shared;
        let (reservation, adapter) = placed.unzip();
        let generation = reservation.as_ref().map_or_else(|| self.next_generation(), |slot| slot.generation);
        let name = info.name.clone();
        let loading = tokio::sync::Mutex::new(());
        let version = Arc::new(AdapterVersion { info, generation, bytes, loading, registry: shared.clone() });
        let mut state = shared.lock();
        if !state.loads.is_current(&name, load.0) {
            return Err(PublishError::Superseded { name });
        }
        if !state.names.contains_key(&name) && state.names.len() >= NAMES_MAX {
            return Err(PublishError::Full);
        }
        let slots = state.slots.named_max();
        if slots == 0 {
            return Err(PublishError::NoSlot { slots });
        }
        let replaced = state.names.insert(name, version.clone());
        let left = state.retire(replaced.as_ref(), &shared.table);
        let mut unplaced = None;
        if let Some((mut reservation, adapter)) = reservation.zip(adapter) {
            if state.slots.name(generation, version.info.pinned) {
                shared.table.set(reservation.slot, Some(Arc::new(adapter)));
                state.slots.filled(generation, false);
                reservation.open = false;
            }
            unplaced = Some(reservation);
        }
        // All of these may take the lock when they are dropped.
        drop(state);
        drop((replaced, left, unplaced));
        shared.notify();
        shared.notify_waiting();
        Ok(version)
    }

    /// Takes the name away. `digest` limits it to that version; without one, loads that go on are not published either.
    /// `false`: no such name (or version).
    pub fn unload(&self, name: &str, digest: Option<&str>) -> bool {
        let mut state = self.shared.lock();
        if digest.is_none() {
            state.loads.forget(name);
        }
        let meant = |version: &Arc<AdapterVersion>| digest.is_none_or(|digest| digest == version.info.digest);
        if !state.names.get(name).is_some_and(meant) {
            return false;
        }
        let removed = state.names.remove(name);
        let left = state.retire(removed.as_ref(), &self.shared.table);
        drop(state);
        drop((removed, left));
        self.shared.notify();
        self.shared.notify_waiting();
        true
    }

    /// The version that `name` means now.
    pub fn version(&self, name: &str) -> Option<Arc<AdapterVersion>> {
        self.shared.lock().names.get(name).cloned()
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().names.keys().cloned().collect()
    }

    /// Every version, named ones first.
    pub fn residents(&self) -> Vec<Resident> {
        let mut state = self.shared.lock();
        state.retiring.retain(|version| version.strong_count() > 0);
        let retiring: Vec<Arc<AdapterVersion>> = state.retiring.iter().filter_map(Weak::upgrade).collect();
        let host = self.shared.host();
        // Besides requests, a named version is held by its name, and a retiring one by the upgrade made here.
        let resident = |version: &Arc<AdapterVersion>, serving: bool| Resident {
            requests: Arc::strong_count(version).saturating_sub(1),
            version: version.clone(),
            serving,
            location: match version.generation {
                held if state.slots.holds(held) => Location::Slot,
                kept if host.holds(kept) => Location::HostMemory,
                _ => Location::Disk,
            },
        };
        let named = state.names.values().map(|version| resident(version, true));
        let all = named.chain(retiring.iter().map(|version| resident(version, false))).collect();
        // The upgrades may be the last: dropped without a lock.
        drop(host);
        drop(state);
        all
    }

    /// A request that has not asked for a slot yet.
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter { ticket: None, registry: self.shared.clone() }
    }

    /// Asks for the slot of `version`.
    pub(crate) fn claim(&self, version: &Arc<AdapterVersion>, waiter: &mut Waiter) -> Result<Claimed, AllPinned> {
        let (shared, generation) = (&self.shared, version.generation);
        let mut state = shared.lock();
        let current = state.names.get(&version.info.name).is_some_and(|named| named.generation == generation);
        let waited = waiter.ticket.take();
        let claim = state.slots.claim(generation, current, version.info.pinned, waited);
        let slots = state.slots.named_max();
        let left_queue = waited.is_some() && !matches!(claim, Claim::Wait(_));
        if let Claim::Fill { slot, evicted: Some(evicted) } = claim {
            shared.evicted(evicted, slot);
        }
        drop(state);
        if left_queue {
            shared.notify_waiting();
        }
        match claim {
            Claim::Leased(slot) => Ok(Claimed::Leased(AdapterLease { version: version.clone(), slot }.into())),
            Claim::Fill { slot, .. } => {
                Ok(Claimed::Reserved(Reservation { generation, slot, open: true, registry: shared.clone() }))
            }
            Claim::Wait(ticket) => {
                waiter.ticket = Some(ticket);
                Ok(Claimed::Wait)
            }
            Claim::Filled => Ok(Claimed::Wait),
            Claim::AllPinned => Err(AllPinned { slots }),
        }
    }

    /// Whether `version` is in a slot.
    pub(crate) fn is_placed(&self, version: &AdapterVersion) -> bool {
        self.shared.lock().slots.holds(version.generation)
    }

    /// The matrices of `version` in the memory of the host, if they are there.
    pub(crate) fn in_host_memory(&self, version: &AdapterVersion) -> Option<HostAdapter> {
        self.shared.host().get(version.generation)
    }

    /// Keeps the matrices of `version` in the memory of the host, if there is room.
    pub(crate) fn keep_in_host_memory(&self, version: &AdapterVersion, adapter: HostAdapter) {
        let bytes = adapter.bytes();
        let left = self.shared.host().keep(version.generation, adapter, bytes);
        drop(left);
    }

    /// Makes the least recently used version leave its slot, if no request uses it, for a device without room. `false`: requests
    /// use all of them.
    pub(crate) fn evict(&self) -> bool {
        let mut state = self.shared.lock();
        let Some((version, slot)) = state.slots.evict() else { return false };
        self.shared.evicted(version, slot);
        true
    }
}

impl Reservation {
    /// Fills the slot with `adapter`, the matrices of `version`; with a lease for the request that did it.
    pub(crate) fn fill(mut self, version: &Arc<AdapterVersion>, adapter: LoadedAdapter) -> Arc<AdapterLease> {
        let shared = self.registry.clone();
        let read_there = adapter.in_host_memory().is_some();
        let mut state = shared.lock();
        shared.table.set(self.slot, Some(Arc::new(adapter)));
        state.slots.filled(self.generation, true);
        self.open = false;
        drop(state);
        // What the backend reads in the memory of the host counts once.
        let left = if read_there { shared.host().remove(self.generation) } else { None };
        drop(left);
        shared.notify_waiting();
        AdapterLease { version: version.clone(), slot: self.slot }.into()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            self.registry.lock().slots.give_up(self.generation);
            self.registry.notify_waiting();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.registry.lock().slots.leave(self.ticket);
            self.registry.notify_waiting();
        }
    }
}

impl State {
    /// `version` has lost its name. Gives what was in its slot, if that is free now.
    fn retire(&mut self, version: Option<&Arc<AdapterVersion>>, table: &AdapterTable) -> Option<Arc<LoadedAdapter>> {
        self.retiring.retain(|version| version.strong_count() > 0);
        let version = version?;
        self.retiring.push(Arc::downgrade(version));
        self.slots.retire(version.generation).and_then(|slot| table.set(slot, None))
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
#[cfg(test)]
mod tests;
