//! The gRPC server: `slm.v1`, health and reflection. All but health need a token, where tokens are needed.

mod auth;
mod embeddings;
mod generation;
mod inference;
mod swarm;
mod tokens;

use std::{sync::Arc, time::Duration};

use slm_listen::{Listener, deadline::DeadlineLayer, timed::grpc_body};
use slm_proto::{
    inference::grpc_inference_service_server::GrpcInferenceServiceServer,
    v1::{
        embeddings_server::EmbeddingsServer, generation_server::GenerationServer, swarm_server::SwarmServer,
        tokens_server::TokensServer,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::Builder;
use tower::util::MapRequestLayer;

use self::auth::authorize;
use crate::{
    RunError,
    access::{Access, table::Caller},
    body_memory::HeldBody,
    dispatch::Dispatcher,
    resolve::resolve,
};

/// Silence after which a caller is asked whether it is there, and how long it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls at once on one connection; more wait at the caller.
const STREAMS_MAX: u32 = 256;
/// Bytes of all headers of one call.
const HEADERS_BYTES_MAX: u32 = 64 << 10;

/// The services, over what everyone shares.
struct GrpcServer {
    dispatcher: Arc<Dispatcher>,
}

/// Serves until `shutdown`, then until the last stream ends.
pub(crate) async fn serve(
    listener: Listener,
    dispatcher: Arc<Dispatcher>,
    access: Access,
    health: HealthServer<impl Health>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let bytes_max = dispatcher.limits.body_bytes_max;
    let body = dispatcher.limits.body;
    let connections = listener.connections(access.grpc().as_ref(), dispatcher.limits.connections());
    let (memory, token) = (dispatcher.body_memory.clone(), access.clone());
    let authorize = authorize(access, Arc::clone(&dispatcher));
    let generation = GenerationServer::new(GrpcServer { dispatcher: Arc::clone(&dispatcher) });
    let embeddings = EmbeddingsServer::new(GrpcServer { dispatcher: Arc::clone(&dispatcher) });
    let tokens = TokensServer::new(GrpcServer { dispatcher: Arc::clone(&dispatcher) });
    let inference = GrpcInferenceServiceServer::new(GrpcServer { dispatcher: Arc::clone(&dispatcher) });
    let swarm = SwarmServer::new(GrpcServer { dispatcher });
    let reflection = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(slm_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(slm_proto::inference::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // A worker's control is not served here, though the descriptors describe it.
            .with_service_name("slm.v1.Generation")
            .with_service_name("slm.v1.Embeddings")
            .with_service_name("slm.v1.Tokens")
            .with_service_name("slm.v1.Swarm")
            .with_service_name("inference.GRPCInferenceService")
            .with_service_name("grpc.health.v1.Health")
    };
    Server::builder()
        // A caller that has gone without a word is not generated for.
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .layer(DeadlineLayer)
        // A message that trickles in is no request.
        .layer(MapRequestLayer::new(move |request: http::Request<tonic::body::Body>| {
            let headers = request.headers().get_all("authorization");
            // Of a caller that is nobody, no message is read.
            let caller = token.caller(headers.iter().map(http::HeaderValue::as_bytes)).ok();
            let caller = caller.and_then(|caller| caller.name().cloned());
            request.map(|message| {
                let held = HeldBody::new(message, memory.clone(), caller, bytes_max);
                grpc_body(tonic::body::Body::new(held), body)
            })
        }))
        .add_service(health)
        .add_service(InterceptedService::new(reflection().build_v1()?, authorize.clone()))
        .add_service(InterceptedService::new(reflection().build_v1alpha()?, authorize.clone()))
        .add_service(InterceptedService::new(generation.max_decoding_message_size(bytes_max), authorize.clone()))
        .add_service(InterceptedService::new(embeddings.max_decoding_message_size(bytes_max), authorize.clone()))
        .add_service(InterceptedService::new(tokens.max_decoding_message_size(bytes_max), authorize.clone()))
        .add_service(InterceptedService::new(inference.max_decoding_message_size(bytes_max), authorize.clone()))
        .add_service(InterceptedService::new(swarm.max_decoding_message_size(bytes_max), authorize))
        .serve_with_incoming_shutdown(connections, shutdown.cancelled_owned())
        .await
        .map_err(|error| RunError::Server { server: "gRPC", reason: error.to_string() })
}

impl GrpcServer {
    /// An unknown name is refused before anything else, so that its message is the one a caller sees.
    fn known(&self, model: &str, caller: &Caller) -> Result<(), Status> {
        let view = self.dispatcher.view();
        if view.index.swarm.generation == 0 && !model.is_empty() {
            return Ok(());
        }
        resolve(&view, model, caller)?;
        Ok(())
    }
}

/// The caller that `authorize` has found.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("the request has no caller: it did not pass authorization"))
}

/// Gives a request an id, unless its caller did.
fn identify(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = uuid::Uuid::new_v4().to_string();
    }
}
