//! The swarm's certificates: its authority, and a Secret with a certificate for each role, minted and renewed here.
//!
//! [`due`] decides what comes next from what the Secrets hold, one step at a time; every step is stored before the next
//! is thought of, so that an operator that ends anywhere leaves something that the next one goes on from. A new
//! authority is trusted by everybody before it signs anything, and the former one is trusted until nothing that it
//! signed is in use. Deleting the Secret of the authority is how a person asks for a new one: nobody is interrupted.
//!
//! Only who holds the lease runs this.

mod due;
mod store;

#[cfg(test)]
mod simulation;

use std::time::{Duration, SystemTime};

use kube::Client;
use slm_tls::{
    Identity, Material, MaterialError, Pem, Tls,
    mint::{self, MintError},
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    due::{Leaf, Step},
    store::{Authorities, Store, Stored},
};
use crate::{
    config::Certificates,
    server::{ClockError, ServerClock},
};

/// Between two looks at the Secrets at most: somebody may have deleted one.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// After an error.
const AGAIN: Duration = Duration::from_secs(2);
/// Steps in a row: far more than any state of the Secrets needs.
const STEPS_MAX: usize = 16;

/// Why there are no certificates now.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server refused, or could not be reached.
    #[error("Secret {secret}: {source}")]
    Api {
        /// Which.
        secret: String,
        /// Its words.
        source: Box<kube::Error>,
    },
    /// The authority is unusable.
    #[error("Secret {}: {source}; delete it: a new authority takes over without interruption", store::AUTHORITY)]
    Authority {
        /// What is wrong.
        source: MintError,
    },
    /// Our own certificate is unusable.
    #[error("Secret {}: {source}; delete it", store::name(Identity::Operator))]
    Own {
        /// What is wrong.
        source: MaterialError,
    },
    /// The authority was lost, and a new one is not trusted by everybody yet.
    #[error("a new authority is being introduced: {} s to wait", .0.as_secs())]
    Introducing(Duration),
    /// It is not known which time it is.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The steps do not come to an end.
    #[error("the Secrets change as fast as they are written: does another operator write them?")]
    Restless,
}

/// The operator's own end of every connection, kept as the Secrets are. Dropping it ends the keeping.
pub(crate) struct Kept {
    pub(crate) tls: Tls,
    keeping: AbortOnDropHandle<()>,
}

impl Kept {
    /// Waits until they are not kept any more, which is a fault, and gives the reason.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.keeping).await {
            Ok(()) => "keeping certificates ended".to_owned(),
            Err(error) => format!("keeping certificates failed: {error}"),
        }
    }
}

/// Waits until there are certificates, and keeps them from then on.
pub(crate) async fn keep(client: Client, namespace: &str, policy: Certificates, clock: ServerClock) -> Kept {
    let keeper = Keeper { store: Store::new(client, namespace), policy, clock };
    loop {
        match keeper.first().await {
            Ok((tls, own, wait)) => {
                let keeping = tokio::spawn(keeper.run(tls.clone(), own, wait));
                return Kept { tls, keeping: AbortOnDropHandle::new(keeping) };
            }
            Err(error) => {
                tracing::warn!(%error, "no certificates: workers are not spoken to");
                let wait = if let Error::Introducing(wait) = error { wait } else { AGAIN };
                tokio::time::sleep(wait.min(LOOK_MAX)).await;
            }
        }
    }
}

struct Keeper {
    store: Store,
    policy: Certificates,
    clock: ServerClock,
}

impl Keeper {
    async fn first(&self) -> Result<(Tls, Pem, Duration), Error> {
        let (own, wait) = self.settle().await?;
        let own = own.ok_or(Error::Introducing(wait))?;
        let failed = |source| Error::Own { source };
        let tls = Tls::new(Material::read(&own, Identity::Operator).map_err(failed)?).map_err(failed)?;
        Ok((tls, own, wait))
    }

    async fn run(self, tls: Tls, mut own: Pem, mut wait: Duration) {
        loop {
            tokio::time::sleep(wait.min(LOOK_MAX)).await;
            wait = match self.settle().await {
                Ok((next, wait)) => {
                    if let Some(next) = next.filter(|next| *next != own) {
                        match Material::read(&next, Identity::Operator) {
                            Ok(material) => tls.replace(material),
                            Err(source) => tracing::error!(error = %Error::Own { source }, "the former stays in use"),
                        }
                        own = next;
                    }
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates are not kept now");
                    AGAIN
                }
            };
        }
    }

    /// Takes every step that is due: the operator's own certificate, if there is one, and how long nothing is.
    async fn settle(&self) -> Result<(Option<Pem>, Duration), Error> {
        for _ in 0..STEPS_MAX {
            let mut stored = self.store.read().await?;
            // The reading of the Secrets told the time.
            let now = self.clock.now()?;
            match due::next(&stored.seen(self.policy.propagation), now) {
                Step::Wait(until) => {
                    // A second at least: certificates know no shorter time.
                    let wait = until.duration_since(now).unwrap_or_default().max(Duration::from_secs(1));
                    return Ok((stored.leaves.remove(&Identity::Operator).map(|leaf| leaf.pem), wait));
                }
                step => self.take(step, stored, now).await?,
            }
        }
        Err(Error::Restless)
    }

    async fn take(&self, step: Step, stored: Stored, now: SystemTime) -> Result<(), Error> {
        let failed = |source| Error::Authority { source };
        let mut authorities = stored.authorities;
        match step {
            Step::Introduce => {
                let next = mint::authority(now, self.policy.authority_lifetime).map_err(failed)?;
                authorities.next = Some(store::read_authority(next).map_err(failed)?);
                tracing::info!("a new authority is introduced: trusted from now on, it signs later");
            }
            Step::Promote => {
                authorities.former.extend(authorities.issuing.take().map(store::Authority::retire));
                authorities.issuing = authorities.next.take();
                tracing::info!("the new authority signs from now on; the former one is still trusted");
            }
            Step::Retire => {
                authorities.former.clear();
                tracing::info!("the former authority is not trusted any more");
            }
            Step::Publish(due) => {
                for (identity, leaf) in due {
                    self.publish(&authorities, &stored.leaves, identity, leaf, now).await?;
                }
                return Ok(());
            }
            Step::Wait(_) => return Ok(()),
        }
        self.store.write_authorities(&authorities, stored.version.as_deref()).await
    }

    async fn publish(
        &self,
        authorities: &Authorities,
        leaves: &store::Leaves,
        identity: Identity,
        leaf: Leaf,
        now: SystemTime,
    ) -> Result<(), Error> {
        let former = leaves.get(&identity);
        let pem = match (leaf, &authorities.issuing, former) {
            (Leaf::New, Some(issuing), _) => {
                let minted = mint::leaf(&issuing.minted, identity, now, self.policy.lifetime)
                    .map_err(|source| Error::Authority { source })?;
                Pem {
                    authorities: authorities.bundle().into(),
                    certificate: minted.certificate.into(),
                    key: minted.key.into(),
                }
            }
            (_, _, Some(former)) => Pem { authorities: authorities.bundle().into(), ..former.pem.clone() },
            // Without an authority nothing is new, and what is not there is not kept.
            (_, _, None) => return Ok(()),
        };
        self.store.write_leaf(identity, pem, now, former.and_then(|former| former.version.as_deref())).await?;
        tracing::info!(%identity, renewed = leaf == Leaf::New, "certificate published");
        Ok(())
    }
}
