//! Authorization by client certificate, and the time limit for a request to arrive.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::Either;
use slm_listen::timed::grpc_body;
use slm_tls::{Identity, server::Peer};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

/// Time limit for a request, which has 4 MiB at most, to arrive.
const REQUEST_MAX: Duration = Duration::from_secs(60);

const GENERATION: &str = "/slm.v1.Generation/";
const EMBEDDINGS: &str = "/slm.v1.Embeddings/";
const TOKENS: &str = "/slm.v1.Tokens/";
const WATCH_STATE: &str = "/slm.v1.WorkerControl/WatchState";
const CONTROL: &str = "/slm.v1.WorkerControl/";

/// Whether `caller` may call the method at `path`. Unlisted methods are forbidden.
fn allowed(caller: Identity, path: &str) -> bool {
    match caller {
        Identity::Operator => path.starts_with(CONTROL) || is_work(path),
        Identity::Router => path == WATCH_STATE || is_work(path),
        Identity::Worker | Identity::Egress => false,
    }
}

/// Whether the method does the work of the model.
fn is_work(path: &str) -> bool {
    [GENERATION, EMBEDDINGS, TOKENS].iter().any(|service| path.starts_with(service))
}

fn check(peer: Option<&Peer>, path: &str) -> Result<(), Status> {
    match peer.and_then(|peer| peer.identity) {
        Some(caller) if allowed(caller, path) => Ok(()),
        Some(caller) => Err(Status::permission_denied(format!("{path}: not for the {caller} of a swarm"))),
        None => Err(Status::permission_denied(format!(
            "{path}: the caller's certificate names neither operator nor router of a swarm"
        ))),
    }
}

/// Layer in front of every service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Whether callers need a certificate; without, every caller may call every method.
    pub(crate) guarded: bool,
}

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: *self, inner }
    }
}

/// A service behind [`Access`].
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    access: Access,
    inner: S,
}

impl<S, R: Default> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.access.guarded
            && let Err(denied) = check(request.extensions().get::<Peer>(), request.uri().path())
        {
            tracing::warn!(reason = denied.message(), "call denied");
            return Either::Right(ready(Ok(denied.into_http())));
        }
        Either::Left(self.inner.call(request.map(|body| grpc_body(body, REQUEST_MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_its_calls() {
        use Identity::{Operator, Router, Worker};
        let table: &[(&str, &[Identity])] = &[
            ("/slm.v1.WorkerControl/LoadAdapter", &[Operator]),
            ("/slm.v1.WorkerControl/UnloadAdapter", &[Operator]),
            ("/slm.v1.WorkerControl/ListAdapters", &[Operator]),
            ("/slm.v1.WorkerControl/WatchState", &[Operator, Router]),
            ("/slm.v1.Generation/Generate", &[Operator, Router]),
            ("/slm.v1.Generation/Complete", &[Operator, Router]),
            ("/slm.v1.Embeddings/Embed", &[Operator, Router]),
            ("/slm.v1.Tokens/Tokenize", &[Operator, Router]),
            ("/grpc.health.v1.Health/Check", &[]),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &[]),
            ("/slm.v1.WorkerControlMore/LoadAdapter", &[]),
        ];
        for (path, callers) in table {
            for caller in [Operator, Router, Worker] {
                let outcome = check(Some(&Peer { identity: Some(caller) }), path);
                assert_eq!(outcome.is_ok(), callers.contains(&caller), "{caller} {path}");
            }
            assert!(check(Some(&Peer { identity: None }), path).is_err());
            assert!(check(None, path).is_err());
        }
    }
}
