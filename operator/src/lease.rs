//! Leader election by a Lease: one of several operators writes, the others stand by.
//!
//! Times are measured by this process, not taken from the others' clocks: a lease is abandoned when it was not renewed
//! for [`DURATION`] of observation. A renewal counts from before its request, however late the answer. The holder opens
//! its [`Fence`] for [`WRITES`] after that, which is [`WRITE_MAX`] before it gives up at [`DEADLINE`]: a write begun at
//! the last moment has finished or was abandoned two seconds before another operator may lead. Two cases remain that a
//! Lease cannot rule out: a write that the API server executes more than two seconds after its connection was closed,
//! and clocks of different speeds. Every write here is therefore idempotent.

mod evaluate;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::evaluate::{Decision, evaluate};
use crate::server::{Fence, WRITE_MAX};

/// Name of the Lease.
const NAME: &str = "slm-operator";
/// An unrenewed lease may be taken after this time.
const DURATION: Duration = Duration::from_secs(10);
/// Without a renewal, the holder has ended its work by then.
const DEADLINE: Duration = Duration::from_secs(8);
/// Without a renewal, the holder begins no write after this time.
const WRITES: Duration = Duration::from_secs(DEADLINE.as_secs() - WRITE_MAX.as_secs());
/// Interval of renewals, and of looks at another holder's lease.
const RENEW: Duration = Duration::from_secs(2);

/// One operator's view of the lease.
pub(crate) struct Election {
    leases: Api<Lease>,
    identity: String,
    fence: Fence,
    /// The observed version of another holder's lease, and the time since it is unchanged.
    seen: Option<(Option<String>, Instant)>,
}

/// Outcome of an attempt at the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// This operator holds it.
    Held,
    /// Another operator holds it.
    Theirs,
    /// It changed meanwhile, perhaps by an earlier attempt of our own: read it again.
    Changed,
}

impl Election {
    /// Election among the operators of a namespace. `fence` is open while this one may write.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, identity: &str, fence: Fence) -> Self {
        Self { leases: Api::namespaced(client, namespace), identity: identity.to_owned(), fence, seen: None }
    }

    /// Waits until the lease is won and gives the time since when; `None` after `stop`.
    pub(crate) async fn win(&mut self, stop: &CancellationToken) -> Option<Instant> {
        loop {
            let asked = Instant::now();
            match timeout(DEADLINE, self.attempt()).await {
                // A lease that took this long to acquire is about to expire.
                Ok(Ok(Attempt::Held)) if asked.elapsed() < WRITES => {
                    self.fence.open_until(asked + WRITES);
                    return Some(asked);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be acquired"),
                Err(_) => tracing::warn!("the lease could not be acquired: the API server does not answer"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(RENEW) => {}
            }
        }
    }

    /// Renews the lease that was won at `won`, until it is lost.
    pub(crate) async fn hold(&mut self, won: Instant) {
        let mut renewed = won;
        while renewed.elapsed() + RENEW < DEADLINE {
            sleep(RENEW).await;
            let asked = Instant::now();
            match timeout_at((asked + WRITE_MAX).min(renewed + DEADLINE), self.attempt()).await {
                Ok(Ok(Attempt::Held)) => {
                    renewed = asked;
                    self.fence.open_until(renewed + WRITES);
                }
                Ok(Ok(Attempt::Theirs)) => break,
                Ok(Ok(Attempt::Changed)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => tracing::warn!("the lease was not renewed: the API server does not answer"),
            }
        }
        self.fence.close();
        tracing::warn!("the lease is lost: nothing is written until it is won again");
    }

    /// Releases the lease, so that another operator can lead at once. Nothing may be written any more.
    pub(crate) async fn give_back(&self) {
        self.fence.close();
        let release = async {
            let Some(mut lease) = self.leases.get_opt(NAME).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.leases.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        // If this fails, the others wait for the lease's duration.
        if let Ok(Err(error)) = timeout(RENEW, release).await {
            tracing::warn!(%error, "the lease was not released");
        }
    }

    /// Acquires or renews the lease if possible.
    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let lease = self.leases.get_opt(NAME).await?;
        let unchanged = lease.as_ref().map_or(Duration::ZERO, |lease| self.unchanged(lease));
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let now = MicroTime(Timestamp::now());
        match (evaluate(spec.as_ref(), unchanged, &self.identity, now), lease) {
            (Decision::Wait, _) => Ok(Attempt::Theirs),
            (Decision::Write(spec), None) => settled(self.leases.create(&PostParams::default(), &named(spec)).await),
            (Decision::Write(spec), Some(lease)) => {
                // With the resource version: of two concurrent attempts one is refused.
                let next = Lease { spec: Some(spec), ..lease };
                settled(self.leases.replace(NAME, &PostParams::default(), &next).await)
            }
        }
    }

    /// Time for which the lease was observed unchanged.
    fn unchanged(&mut self, lease: &Lease) -> Duration {
        let version = &lease.metadata.resource_version;
        match &self.seen {
            Some((seen, since)) if seen == version => since.elapsed(),
            _ => {
                self.seen = Some((version.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }
}

fn named(spec: LeaseSpec) -> Lease {
    let mut lease = Lease { spec: Some(spec), ..Lease::default() };
    lease.metadata.name = Some(NAME.to_owned());
    lease
}

/// A conflict means that another operator was faster.
fn settled(outcome: Result<Lease, kube::Error>) -> Result<Attempt, kube::Error> {
    match outcome {
        Ok(_) => Ok(Attempt::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Changed),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Server;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/n/leases/slm-operator";

    fn operator(server: &Server, identity: &str) -> (Election, Fence) {
        let fence = Fence::default();
        (Election::new(server.client(), "n", identity, fence.clone()), fence)
    }

    fn holder(server: &Server) -> Option<String> {
        server.get(PATH)?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    async fn won(election: &mut Election) -> Instant {
        election.win(&CancellationToken::new()).await.expect("the lease")
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_next_follows_when_it_ends_in_order() {
        let server = Server::new();
        let ((mut first, fence), (mut second, _)) = (operator(&server, "a"), operator(&server, "b"));
        won(&mut first).await;
        assert!(fence.is_open());
        let began = Instant::now();
        let (since, ()) = tokio::join!(won(&mut second), async {
            sleep(Duration::from_secs(1)).await;
            first.give_back().await;
        });
        assert!(!fence.is_open(), "closed before the lease is given back");
        assert!(since - began <= RENEW, "{:?}", since - began);
        assert_eq!(holder(&server).as_deref(), Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_vanishes_is_followed_after_the_duration() {
        let server = Server::new();
        let ((mut first, fence), (mut second, _)) = (operator(&server, "a"), operator(&server, "b"));
        let written = won(&mut first).await;
        let since = won(&mut second).await;
        assert!(!fence.is_open(), "the first one's fence closed by itself");
        let after = since - written;
        assert!(after >= DURATION && after <= DURATION + RENEW * 2, "{after:?}");
    }

    /// The API server takes five seconds for everything: the holder counts from before it asked.
    #[tokio::test(start_paused = true)]
    async fn a_slow_api_server_ends_the_term_in_time() {
        let server = Server::new();
        let (mut election, fence) = operator(&server, "a");
        let since = won(&mut election).await;
        server.delay(Duration::from_secs(5));
        let writes_end = async {
            while fence.is_open() {
                sleep(Duration::from_millis(100)).await;
            }
            Instant::now()
        };
        let ((), writes_ended) = tokio::join!(election.hold(since), writes_end);
        assert!(since.elapsed() <= DEADLINE, "held for {:?}", since.elapsed());
        assert!(writes_ended - since <= WRITES + Duration::from_millis(100), "wrote for {:?}", writes_ended - since);
    }

    /// Each answer takes one and a half seconds: the two requests of a renewal take as long as one may.
    #[tokio::test(start_paused = true)]
    async fn a_renewal_counts_from_before_it_was_asked_for() {
        let server = Server::new();
        let (mut election, fence) = operator(&server, "a");
        let since = won(&mut election).await;
        server.delay(Duration::from_millis(1_400));
        let hold = tokio::spawn(async move { election.hold(since).await });
        // Asked for at 2 s, renewed by 4.8 s: writes may begin until 7 s, and not until 9.8 s.
        sleep(Duration::from_millis(5_000)).await;
        assert!(fence.is_open());
        server.delay(Duration::from_secs(60));
        sleep(Duration::from_millis(2_100)).await;
        assert!(!fence.is_open());
        hold.await.expect("it ends");
        assert!(since.elapsed() <= RENEW + DEADLINE, "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_error_and_a_conflict_lose_no_lease() {
        let server = Server::new();
        let (mut election, fence) = operator(&server, "a");
        let since = won(&mut election).await;
        server.refuse(500);
        server.refuse(409);
        let hold = tokio::spawn(async move { election.hold(since).await });
        sleep(Duration::from_secs(30)).await;
        assert!(fence.is_open() && !hold.is_finished());
        hold.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_somebody_took_is_lost() {
        let server = Server::new();
        let (mut election, fence) = operator(&server, "a");
        let since = won(&mut election).await;
        let mut lease = server.get(PATH).expect("the lease");
        lease["spec"]["holderIdentity"] = "b".into();
        server.put(PATH, lease);
        election.hold(since).await;
        assert!(!fence.is_open() && since.elapsed() < RENEW * 2);
        election.give_back().await;
        assert_eq!(holder(&server).as_deref(), Some("b"), "what is not ours is not given away");
    }
}
