//! Slots for requests: brings the matrices of an adapter to where the backend reads them.
//!
//! An adapter that is in no slot comes from the memory of the host, and if it is not there, from its packed file in the cache or
//! from its source. Of several requests that want it, one brings it. Its files may have left the cache meanwhile: what has no
//! files any more loses its name, so that the state stream shows it missing and it is loaded anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use slm_proto::v1;
use tonic::Status;

use super::{Shared, status};
use crate::{
    adapters::{AdapterLease, AdapterVersion, Claimed, HostAdapter, Location, Reservation},
    fetch::{self, Fetched},
    model::{LoadAdapterError, Model, WantedAdapter},
};

/// Longest time until a device without room for an adapter is asked again, if nobody says that there is room.
const ROOM_AGAIN: Duration = Duration::from_millis(100);

impl Shared {
    /// A lease on the slot of `version`. Waits until one is free, and until its matrices are there.
    ///
    /// # Errors
    /// Pinned adapters have all slots, the files of the adapter are gone, or the device failed.
    pub(super) async fn lease(&self, version: Arc<AdapterVersion>) -> Result<Arc<AdapterLease>, Status> {
        let since = Instant::now();
        let adapters = &self.model.adapters;
        let (mut waiter, mut freed) = (adapters.waiter(), adapters.slot_freed());
        let (mut from, mut matrices) = (Location::Slot, None);
        loop {
            freed.mark_unchanged();
            if matrices.is_none() && !adapters.is_placed(&version) {
                let (location, adapter) = self.in_host_memory(&version).await?;
                from = from.max(location);
                matrices = adapter;
            }
            match adapters.claim(&version, &mut waiter)? {
                Claimed::Leased(lease) => {
                    adapters.metrics().waited(from, since.elapsed().as_secs_f64());
                    return Ok(lease);
                }
                Claimed::Reserved(reservation) => {
                    // It has left the slot since: the reservation is given up, and the matrices are brought first.
                    let Some(adapter) = matrices.clone() else { continue };
                    if let Some(lease) = self.fill(reservation, &version, adapter).await? {
                        adapters.metrics().waited(from, since.elapsed().as_secs_f64());
                        return Ok(lease);
                    }
                    if !adapters.evict() {
                        // Requests use all that is there. The reservation that was given up is no news.
                        freed.mark_unchanged();
                        let _ = tokio::time::timeout(ROOM_AGAIN, freed.changed()).await;
                    }
                }
                // The sender lives as long as the adapters.
                Claimed::Wait => drop(freed.changed().await),
            }
        }
    }

    /// Fills the slot. `None`: the device has no room for an adapter of this rank.
    async fn fill(
        &self,
        reservation: Reservation,
        version: &Arc<AdapterVersion>,
        adapter: HostAdapter,
    ) -> Result<Option<Arc<AdapterLease>>, Status> {
        let (model, version) = (self.model.clone(), version.clone());
        let place = move || {
            let placed = model.place(&adapter).map_err(LoadAdapterError::from)?;
            Ok::<_, Status>(placed.map(|placed| reservation.fill(&version, placed)))
        };
        if !self.model.copies_adapters() {
            return place();
        }
        tokio::task::spawn_blocking(place).await.map_err(|error| Status::internal(error.to_string()))?
    }

    /// The matrices of `version` in the memory of the host, and where they were; none if another request has placed them.
    async fn in_host_memory(&self, version: &Arc<AdapterVersion>) -> Result<(Location, Option<HostAdapter>), Status> {
        let adapters = &self.model.adapters;
        if let Some(adapter) = adapters.in_host_memory(version) {
            return Ok((Location::HostMemory, Some(adapter)));
        }
        let _alone = version.loading.lock().await;
        if let Some(adapter) = adapters.in_host_memory(version) {
            return Ok((Location::Disk, Some(adapter)));
        }
        if adapters.is_placed(version) {
            return Ok((Location::Disk, None));
        }
        match tokio::time::timeout(self.load_timeout, self.read(version)).await {
            Ok(Ok(adapter)) => Ok((Location::Disk, Some(adapter))),
            Ok(Err(error)) => Err(self.gone(version, &error)),
            Err(_) => Err(self.gone(version, &status::load_timed_out(self.load_timeout))),
        }
    }

    /// Reads and packs `version` again, from the cache or from its source.
    async fn read(&self, version: &Arc<AdapterVersion>) -> Result<HostAdapter, Status> {
        let info = &version.info;
        let digest = if info.source_digest.is_empty() { &info.digest } else { &info.source_digest };
        let request = v1::LoadAdapterRequest {
            name: info.name.clone(),
            source: info.source.clone(),
            digest: digest.clone(),
            ..v1::LoadAdapterRequest::default()
        };
        let fetched = fetch::adapter(&self.store, &request).await;
        let Fetched { artifact, .. } = fetched.map_err(|error| status::not_fetched(&error))?;
        let wanted = WantedAdapter {
            name: info.name.clone(),
            source: info.source.clone(),
            source_digest: info.source_digest.clone(),
            digest: Some(info.digest.clone()),
            scale: info.scale,
            pinned: info.pinned,
            since: Instant::now(),
        };
        let permit = self.packing.clone().acquire_owned().await;
        let permit = permit.map_err(|error| Status::internal(error.to_string()))?;
        let (model, version) = (self.model.clone(), version.clone());
        let read = move || {
            // Packing continues when the caller leaves, and so keeps its permit.
            let _permit = permit;
            let adapter = model.host_adapter(&wanted, artifact.path(), artifact.derived())?;
            keep(&model, &version, &adapter, artifact.derived());
            Ok::<_, LoadAdapterError>(adapter)
        };
        Ok(tokio::task::spawn_blocking(read).await.map_err(|error| Status::internal(error.to_string()))??)
    }

    /// What `version` was loaded from is gone: so is its name.
    fn gone(&self, version: &AdapterVersion, error: &Status) -> Status {
        let info = &version.info;
        tracing::warn!(
            adapter = info.name,
            error = error.message(),
            "the adapter cannot be read any more; it is unloaded"
        );
        self.model.adapters.unload(&info.name, Some(&info.digest));
        status::adapter_gone(&info.name, error)
    }
}

fn keep(model: &Model, version: &AdapterVersion, adapter: &HostAdapter, derived: Option<&std::path::Path>) {
    model.adapters.keep_in_host_memory(version, adapter.clone());
    if let Some(derived) = derived {
        model.keep_packed(version, adapter, derived);
    }
}
