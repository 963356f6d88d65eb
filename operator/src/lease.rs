//! Leader election by a Lease: of several operators one writes, the others wait.
//!
//! Times are those of this process, not of the others' clocks: a lease counts as abandoned when nobody has renewed it
//! for its duration while we looked. The holder gives up before that, so that two never write at once; it hands the
//! lease over when it ends in order.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
const NAME: &str = "slm-operator";
/// Unrenewed for so long, it is anybody's.
const DURATION: Duration = Duration::from_secs(10);
/// Unrenewed for so long, the holder stops to write.
const DEADLINE: Duration = Duration::from_secs(7);
/// Between two renewals, and between two looks at somebody else's lease.
const RENEW: Duration = Duration::from_secs(2);

/// One operator's view of the lease.
pub(crate) struct Election {
    leases: Api<Lease>,
    identity: String,
    seen: Option<(Option<String>, Instant)>,
}

impl Election {
    /// For the operators of a namespace.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { leases: Api::namespaced(client, namespace), identity: identity.to_owned(), seen: None }
    }

    /// Waits until the lease is ours, or until `stop`: then false.
    pub(crate) async fn win(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match self.attempt().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be had now"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = sleep(RENEW) => {}
            }
        }
    }

    /// Renews until the lease is lost or `stop`; gives it back in the second case.
    pub(crate) async fn hold(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < DEADLINE {
            tokio::select! {
                () = stop.cancelled() => return self.give_back().await,
                () = sleep(RENEW) => {}
            }
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            match timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => {}
            }
        }
        tracing::warn!("the lease is lost: nothing is written until it is won again");
    }

    /// Takes or renews the lease if it may be taken.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(NAME.to_owned());
            lease.spec = Some(self.spec(None));
            return settled(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.abandoned(&lease) {
            return Ok(false);
        }
        // With the version that was read: of two who try at once one is refused.
        let next = Lease { spec: Some(self.spec(Some(&spec))), ..lease };
        settled(self.leases.replace(NAME, &PostParams::default(), &next).await)
    }

    /// Whether nobody has touched it for its duration.
    fn abandoned(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.filter(|before| before.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.and_then(|ours| ours.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours.is_some() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) {
        let release = async {
            let Some(mut lease) = self.leases.get_opt(NAME).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.leases.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        // The others wait for its duration when this fails.
        if let Ok(Err(error)) = timeout(RENEW, release).await {
            tracing::warn!(%error, "the lease was not given back");
        }
    }
}

/// A conflict means that somebody else was faster.
fn settled(outcome: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match outcome {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
