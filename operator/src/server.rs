//! API client of a leading operator: no write without the lease, and a clock taken from the API server.

mod clock;
mod fence;

use std::{error::Error, time::Duration};

use http::{Method, Request};
use kube::{Client, client::Body};
use tokio::time::timeout;

pub(crate) use self::{
    clock::{ClockError, ServerClock},
    fence::Fence,
};

/// Longest duration of a write. A slower one is abandoned, and its caller retries.
pub(crate) const WRITE_MAX: Duration = Duration::from_secs(3);

/// Reason why a request was not sent, or was abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    /// Another operator may hold the lease.
    #[error("no writes now: the lease was not renewed in time")]
    Fenced,
    /// It might take effect after the lease was lost.
    #[error("the API server did not answer a write within {} s", WRITE_MAX.as_secs())]
    Slow,
}

/// `client` with every write behind `fence`, and the date of every answer passed to `clock`.
#[must_use]
pub(crate) fn guarded(client: Client, fence: Fence, clock: ServerClock, namespace: &str) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, fence, clock) = (client.clone(), fence.clone(), clock.clone());
        async move {
            let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
            if !reads && !fence.is_open() {
                return Err(Refused::Fenced.into());
            }
            let sent = client.send(request);
            let answer = if reads { sent.await } else { timeout(WRITE_MAX, sent).await.map_err(|_| Refused::Slow)? }?;
            clock.note(answer.headers());
            Ok::<_, Box<dyn Error + Send + Sync>>(answer)
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{Patch, PatchParams},
    };
    use serde_json::json;
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::fake::Server;

    async fn write(client: &Client) -> Result<(), String> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "n");
        let patch = Patch::Merge(json!({ "data": { "key": "value" } }));
        maps.patch("a", &PatchParams::default(), &patch).await.map(|_| ()).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_behind_the_fence() {
        let server = Server::new();
        server.put("/api/v1/namespaces/n/configmaps/a", json!({ "metadata": { "name": "a" } }));
        let fence = Fence::default();
        let client = guarded(server.client(), fence.clone(), ServerClock::default(), "n");
        assert!(write(&client).await.is_err_and(|why| why.contains("lease")), "before it is opened");
        fence.open_until(Instant::now() + Duration::from_secs(5));
        assert_eq!(write(&client).await, Ok(()));
        advance(Duration::from_secs(6)).await;
        assert!(write(&client).await.is_err_and(|why| why.contains("lease")), "after its time");
        assert_eq!(server.writes(), 1);
        let maps: Api<ConfigMap> = Api::namespaced(client, "n");
        assert!(maps.get("a").await.is_ok(), "reading is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_write_is_given_up() {
        let server = Server::new();
        server.put("/api/v1/namespaces/n/configmaps/a", json!({ "metadata": { "name": "a" } }));
        server.delay(Duration::from_secs(10));
        let fence = Fence::default();
        let client = guarded(server.client(), fence.clone(), ServerClock::default(), "n");
        let began = Instant::now();
        fence.open_until(began + Duration::from_secs(60));
        assert!(write(&client).await.is_err_and(|why| why.contains("within 3 s")));
        assert_eq!(began.elapsed(), WRITE_MAX);
    }
}
