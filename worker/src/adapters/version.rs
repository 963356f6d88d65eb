//! Versions of adapters, and leases on their slots.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, SystemTime},
};

use slm_convert::peft::AdapterChat;
use slm_head::Head;

use super::{LoadedAdapter, Shared};
use crate::embed::Readout;

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
    /// Whether it never leaves its slot for another adapter.
    pub pinned: bool,
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
            digest: adapter.digest().to_owned(),
            rank_max: adapter.rank_max(),
            target_modules: adapter.target_modules().to_vec(),
            ..Self::named(name, scale, load_time)
        }
    }

    /// Of an adapter of which no more is known yet.
    pub(crate) fn named(name: &str, scale: f32, load_time: Duration) -> Self {
        Self {
            name: name.to_owned(),
            digest: String::new(),
            source: String::new(),
            source_digest: String::new(),
            scale,
            pinned: false,
            rank_max: 0,
            target_modules: Vec::new(),
            load_time,
            loaded_at: SystemTime::now(),
            chat: AdapterChat::default(),
            readout: None,
            head: None,
        }
    }
}

/// One version of an adapter. A request that has this is answered by this version, wherever its matrices are now.
#[derive(Debug)]
pub struct AdapterVersion {
    /// What it is.
    pub info: AdapterInfo,
    /// Counts up with every load.
    pub generation: u64,
    /// Bytes that its matrices take.
    pub bytes: u64,
    /// Held by the one request that brings it into the memory of the host; others wait for that.
    pub(crate) loading: tokio::sync::Mutex<()>,
    pub(super) registry: Arc<Shared>,
}

impl Drop for AdapterVersion {
    fn drop(&mut self) {
        let adapter = self.registry.host().remove(self.generation);
        drop(adapter);
    }
}

/// A version in its slot, as long as anybody holds this.
#[derive(Debug)]
pub struct AdapterLease {
    /// The version.
    pub(super) version: Arc<AdapterVersion>,
    pub(super) slot: usize,
}

impl Deref for AdapterLease {
    type Target = AdapterVersion;

    fn deref(&self) -> &AdapterVersion {
        &self.version
    }
}

impl AdapterLease {
    /// Its slot in the table.
    pub fn slot(&self) -> usize {
        self.slot
    }
}

impl Drop for AdapterLease {
    fn drop(&mut self) {
        self.version.registry.release(self.version.generation);
    }
}
