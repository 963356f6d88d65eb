//! Certificates and authorities are replaced while callers call.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use slm_tls::{Identity, Tls};
use tokio::{sync::Notify, task::JoinSet};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

use crate::harness::{Served, authority, call, channel, knock, material, pem, serve, tls, words};

const CALLERS: usize = 8;
/// Calls that all callers together make between two replacements.
const CALLS: u64 = 64;

/// Callers without pause: each calls in turn over a connection of its own that it keeps, and over a fresh one.
struct Load {
    made: Arc<AtomicU64>,
    moved: Arc<Notify>,
    end: Arc<AtomicBool>,
    callers: JoinSet<Result<(), String>>,
}

impl Load {
    fn start(served: &Served, tls: &Tls) -> Self {
        let (made, moved, end) = <(Arc<AtomicU64>, Arc<Notify>, Arc<AtomicBool>)>::default();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (made, moved, end) = (Arc::clone(&made), Arc::clone(&moved), Arc::clone(&end));
            let (tls, address) = (tls.clone(), served.address);
            callers.spawn(async move {
                let kept = channel(address, Identity::Worker, &tls);
                while !end.load(Ordering::Relaxed) {
                    for channel in [kept.clone(), channel(address, Identity::Worker, &tls)] {
                        call(channel).await.map_err(|status| words(&status))?;
                        made.fetch_add(1, Ordering::Relaxed);
                        moved.notify_one();
                    }
                }
                Ok(())
            });
        }
        Self { made, moved, end, callers }
    }

    /// Returns when so many calls were made since, or when a caller gave up.
    async fn go_on(&self) {
        let target = self.made.load(Ordering::Relaxed) + CALLS;
        while self.made.load(Ordering::Relaxed) < target {
            self.moved.notified().await;
        }
    }

    async fn stop(mut self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            assert_eq!(ended.unwrap(), Ok(()));
        }
        self.made.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_feels_new_certificates_nor_a_new_authority() {
    let (old, new) = (authority(), authority());
    let (worker, router) = (tls(&old, Identity::Worker), tls(&old, Identity::Router));
    let served = serve(&worker).await;
    let mut client = HealthClient::new(channel(served.address, Identity::Worker, &router));
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let load = Load::start(&served, &router);

    for _ in 0..10 {
        worker.replace(material(&old, &[&old], Identity::Worker));
        load.go_on().await;
        router.replace(material(&old, &[&old], Identity::Router));
        load.go_on().await;
    }
    // Trusted by all, then issuing, then alone; each process in its own time.
    let both = [&old, &new];
    for (issuer, bundle) in [(&old, &both[..]), (&new, &both[..]), (&new, &both[1..])] {
        router.replace(material(issuer, bundle, Identity::Router));
        load.go_on().await;
        worker.replace(material(issuer, bundle, Identity::Worker));
        load.go_on().await;
    }
    let made = load.stop().await;
    assert!(made >= 26 * CALLS, "{made}");

    // The stream is the one of the beginning, and speaks.
    let next =
        if first.status == ServingStatus::Serving as i32 { ServingStatus::NotServing } else { ServingStatus::Serving };
    served.health.set_service_status("", next).await;
    assert_eq!(stream.message().await.unwrap().unwrap().status, next as i32);

    // The former authority is nobody any more.
    let former = pem(&old, &[&new], Identity::Router);
    let refused = knock(served.address, &new, Some(&former)).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownCA"), "{refused}");
}
