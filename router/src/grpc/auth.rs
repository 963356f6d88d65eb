//! Authentication of gRPC requests, before anything of a request is read.

use std::sync::Arc;

use tonic::{Request, Status, service::Interceptor};

use crate::{access::Access, dispatch::Dispatcher};

/// Gives services their caller as an extension, or refuses with UNAUTHENTICATED.
pub(super) fn authorize(access: Access, dispatcher: Arc<Dispatcher>) -> impl Interceptor + Clone {
    move |mut request: Request<()>| -> Result<Request<()>, Status> {
        let headers = request.metadata().get_all("authorization");
        match access.caller(headers.iter().map(|value| value.as_encoded_bytes())) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Ok(request)
            }
            Err(unauthorized) => {
                dispatcher.metrics.unauthorized();
                tracing::debug!(reason = %unauthorized, "nobody's request");
                Err(unauthorized.into())
            }
        }
    }
}
