//! The gRPC door: `slm.v1`, health and reflection.

mod generation;
mod swarm;

use std::sync::Arc;

use slm_proto::v1::{generation_server::GenerationServer, swarm_server::SwarmServer};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::Builder;

use crate::{RunError, dispatch::Dispatcher, listen::Listener, resolve::resolve};

/// The services, over what everyone shares.
struct Door {
    dispatcher: Arc<Dispatcher>,
}

/// Serves until `shutdown`, then until the last stream ends.
pub(crate) async fn serve(
    listener: Listener,
    dispatcher: Arc<Dispatcher>,
    health: HealthServer<impl Health>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let bytes_max = dispatcher.limits.body_bytes_max;
    let generation = GenerationServer::new(Door { dispatcher: Arc::clone(&dispatcher) });
    let swarm = SwarmServer::new(Door { dispatcher });
    let reflection = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(slm_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // A worker's control is not served here, though the descriptors describe it.
            .with_service_name("slm.v1.Generation")
            .with_service_name("slm.v1.Swarm")
            .with_service_name("grpc.health.v1.Health")
    };
    Server::builder()
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(generation.max_decoding_message_size(bytes_max))
        .add_service(swarm.max_decoding_message_size(bytes_max))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener.tcp).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await
        .map_err(|error| RunError::Server { server: "gRPC", reason: error.to_string() })
}

impl Door {
    /// An unknown name is refused before anything else, so that its message is the one a caller sees.
    fn known(&self, model: &str) -> Result<(), Status> {
        let view = self.dispatcher.view();
        if view.index.swarm.generation == 0 && !model.is_empty() {
            return Ok(());
        }
        resolve(&view, model)?;
        Ok(())
    }
}
