//! `slm.v1.WorkerControl`: loads and unloads of adapters, and the state stream.

use std::{pin::Pin, time::Instant};

use futures::{Stream, StreamExt};
use slm_proto::v1::{self, worker_control_server::WorkerControl};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{Shared, status};
use crate::{
    adapters::{LoadTicket, Resident},
    fetch::{self, Fetched},
    model::{LoadAdapterError, WantedAdapter},
    state::adapter_state,
};

pub(crate) struct Control(pub(crate) Shared);

type States = Pin<Box<dyn Stream<Item = Result<v1::WorkerState, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerControl for Control {
    async fn load_adapter(
        &self,
        request: Request<v1::LoadAdapterRequest>,
    ) -> Result<Response<v1::AdapterState>, Status> {
        let since = Instant::now();
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(status::missing("name", "it is the name that requests use"));
        }
        if request.source.is_empty() {
            return Err(status::missing("source", "it is the URI of the adapter's files"));
        }
        // Taken on arrival, so that the result of a later call for this name wins, whichever load finishes first.
        // Dropped with this call, so that nothing is published for a caller that left.
        let ticket = self.0.model.adapters.begin_load(&request.name);
        let limit = self.0.load_timeout;
        let loaded = tokio::time::timeout(limit, self.load(request, since, &ticket)).await;
        let resident = loaded.map_err(|_| status::load_timed_out(limit))??;
        let info = &resident.version.info;
        tracing::info!(adapter = info.name, digest = info.digest, "adapter loaded");
        Ok(Response::new(adapter_state(resident)))
    }

    async fn unload_adapter(
        &self,
        request: Request<v1::UnloadAdapterRequest>,
    ) -> Result<Response<v1::UnloadAdapterResponse>, Status> {
        let v1::UnloadAdapterRequest { name, digest } = request.into_inner();
        let digest = Some(digest.as_str()).filter(|digest| !digest.is_empty());
        if !self.0.model.adapters.unload(&name, digest) {
            return Err(status::unknown_model(&name, &self.0.model.adapters.names()));
        }
        tracing::info!(adapter = name, "adapter unloaded");
        Ok(Response::new(v1::UnloadAdapterResponse {}))
    }

    async fn list_adapters(
        &self,
        _request: Request<v1::ListAdaptersRequest>,
    ) -> Result<Response<v1::ListAdaptersResponse>, Status> {
        let adapters = self.0.model.adapters.residents().into_iter().map(adapter_state).collect();
        Ok(Response::new(v1::ListAdaptersResponse { adapters }))
    }

    type WatchStateStream = States;

    async fn watch_state(&self, _request: Request<v1::WatchStateRequest>) -> Result<Response<States>, Status> {
        // The stream ends with the last published state.
        Ok(Response::new(Box::pin(WatchStream::new(self.0.state.clone()).map(Ok))))
    }
}

impl Control {
    async fn load(
        &self,
        request: v1::LoadAdapterRequest,
        since: Instant,
        ticket: &LoadTicket,
    ) -> Result<Resident, Status> {
        let fetched = fetch::adapter(&self.0.store, &request).await;
        let Fetched { artifact, contents } = fetched.map_err(|error| status::not_fetched(&error))?;
        let wanted = WantedAdapter {
            name: request.name,
            source: request.source,
            source_digest: artifact.digest().unwrap_or_default().to_owned(),
            digest: contents,
            scale: request.scale.unwrap_or(1.0),
            pinned: request.pinned,
            since,
        };
        let model = self.0.model.clone();
        let permit = self.0.packing.clone().acquire_owned().await;
        let permit = permit.map_err(|error| Status::internal(error.to_string()))?;
        let load = ticket.load();
        let loaded = tokio::task::spawn_blocking(move || {
            // Packing continues when the caller leaves, and so keeps its permit.
            let _permit = permit;
            let loaded = model.load_adapter(&wanted, load, artifact.path(), artifact.derived())?;
            Ok::<_, LoadAdapterError>((model, loaded, artifact))
        });
        let (model, (version, adapter), artifact) =
            loaded.await.map_err(|error| Status::internal(error.to_string()))??;
        let generation = version.generation;
        let residents = model.adapters.residents();
        // In the background.
        tokio::task::spawn_blocking(move || {
            if let Some(derived) = artifact.derived() {
                model.keep_packed(&version, &adapter, derived);
            }
        });
        let resident = residents.into_iter().find(|resident| resident.version.generation == generation);
        resident.ok_or_else(|| Status::aborted("another load replaced this version at once"))
    }
}
