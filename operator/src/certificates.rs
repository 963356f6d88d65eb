//! Certificate controller: mints and renews the swarm's certificate authority and one certificate for each role.
//!
//! [`rotation`] decides the next step from the contents of the Secrets. Every step is stored before the next one, so
//! that another operator can continue after a crash. A new authority is trusted everywhere before it signs anything,
//! and the former one is trusted until nothing that it signed is in use. Deleting the authority's Secret rotates it
//! without interruption.
//!
//! Runs only while this operator holds the lease.

mod rotation;
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
    rotation::{LeafUpdate, RotationStep},
    store::{Authorities, Store, Stored},
};
use crate::{
    config::Certificates,
    server::{ClockError, ServerClock},
};

/// Longest interval between two reads of the Secrets: one may have been deleted.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// Pause after an error.
const AGAIN: Duration = Duration::from_secs(2);
/// Bound on successive steps: far more than any state of the Secrets needs.
const STEPS_MAX: usize = 16;

/// Reason for having no certificates now.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server refused, or could not be reached.
    #[error("Secret {secret}: {source}")]
    Api {
        /// Name of the Secret.
        secret: String,
        /// Error of the API server.
        source: Box<kube::Error>,
    },
    /// The authority is unusable.
    #[error("Secret {}: {source}; delete it: a new authority takes over without interruption", store::AUTHORITY)]
    Authority {
        /// Error of the authority's certificate or key.
        source: MintError,
    },
    /// The operator's own certificate is unusable.
    #[error("Secret {}: {source}; delete it", store::name(Identity::Operator))]
    Own {
        /// Error of the certificate or key.
        source: MaterialError,
    },
    /// The authority was lost, and not every process trusts the new one yet.
    #[error("a new authority is being introduced: {} s to wait", .0.as_secs())]
    Introducing(Duration),
    /// The time is not known.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The bound on successive steps was reached.
    #[error("the Secrets change as fast as they are written: does another operator write them?")]
    Restless,
}

/// The operator's TLS material, replaced whenever its Secret changes. Dropping it ends the rotation.
pub(crate) struct RotatingCertificates {
    pub(crate) tls: Tls,
    rotation_task: AbortOnDropHandle<()>,
}

impl RotatingCertificates {
    /// Waits until the rotation task ends, which is a fault, and gives the reason.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.rotation_task).await {
            Ok(()) => "the certificate rotation task ended".to_owned(),
            Err(error) => format!("the certificate rotation task failed: {error}"),
        }
    }
}

/// Waits for the first certificates, then rotates them in the background.
pub(crate) async fn start_rotation(
    client: Client,
    namespace: &str,
    policy: Certificates,
    clock: ServerClock,
) -> RotatingCertificates {
    let controller = CertificateController { store: Store::new(client, namespace), policy, clock };
    loop {
        match controller.first().await {
            Ok((tls, own, wait)) => {
                let task = tokio::spawn(controller.run(tls.clone(), own, wait));
                return RotatingCertificates { tls, rotation_task: AbortOnDropHandle::new(task) };
            }
            Err(error) => {
                tracing::warn!(%error, "no certificates yet: workers cannot be reached");
                let wait = if let Error::Introducing(wait) = error { wait } else { AGAIN };
                tokio::time::sleep(wait.min(LOOK_MAX)).await;
            }
        }
    }
}

struct CertificateController {
    store: Store,
    policy: Certificates,
    clock: ServerClock,
}

impl CertificateController {
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
                            Err(source) => {
                                tracing::error!(error = %Error::Own { source }, "the new certificate is unusable; the former stays in use")
                            }
                        }
                        own = next;
                    }
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates cannot be renewed now");
                    AGAIN
                }
            };
        }
    }

    /// Takes every step that is due. Gives the operator's own certificate, if there is one, and the time until the next
    /// step.
    async fn settle(&self) -> Result<(Option<Pem>, Duration), Error> {
        for _ in 0..STEPS_MAX {
            let mut stored = self.store.read().await?;
            // Reading the Secrets has set the clock.
            let now = self.clock.now()?;
            match rotation::next(&stored.seen(self.policy.propagation), now) {
                RotationStep::Wait(until) => {
                    // At least a second, the resolution of certificates.
                    let wait = until.duration_since(now).unwrap_or_default().max(Duration::from_secs(1));
                    return Ok((stored.leaves.remove(&Identity::Operator).map(|leaf| leaf.pem), wait));
                }
                step => self.take(step, stored, now).await?,
            }
        }
        Err(Error::Restless)
    }

    async fn take(&self, step: RotationStep, stored: Stored, now: SystemTime) -> Result<(), Error> {
        let failed = |source| Error::Authority { source };
        let mut authorities = stored.authorities;
        match step {
            RotationStep::Introduce => {
                let next = mint::authority(now, self.policy.authority_lifetime).map_err(failed)?;
                authorities.next = Some(store::read_authority(next).map_err(failed)?);
                tracing::info!("a new authority was introduced: trusted from now on, signing later");
            }
            RotationStep::Promote => {
                authorities.former.extend(authorities.issuing.take().map(store::Authority::retire));
                authorities.issuing = authorities.next.take();
                tracing::info!("the new authority signs from now on; the former one is still trusted");
            }
            RotationStep::Retire => {
                authorities.former.clear();
                tracing::info!("the former authority is no longer trusted");
            }
            RotationStep::Publish(due) => {
                for (identity, leaf) in due {
                    self.publish(&authorities, &stored.leaves, identity, leaf, now).await?;
                }
                return Ok(());
            }
            RotationStep::Wait(_) => return Ok(()),
        }
        self.store.write_authorities(&authorities, stored.version.as_deref()).await
    }

    async fn publish(
        &self,
        authorities: &Authorities,
        leaves: &store::Leaves,
        identity: Identity,
        leaf: LeafUpdate,
        now: SystemTime,
    ) -> Result<(), Error> {
        let former = leaves.get(&identity);
        let pem = match (leaf, &authorities.issuing, former) {
            (LeafUpdate::NewCertificate, Some(issuing), _) => {
                let minted = mint::leaf(&issuing.minted, identity, now, self.policy.lifetime)
                    .map_err(|source| Error::Authority { source })?;
                Pem {
                    authorities: authorities.bundle().into(),
                    certificate: minted.certificate.into(),
                    key: minted.key.into(),
                }
            }
            (_, _, Some(former)) => Pem { authorities: authorities.bundle().into(), ..former.pem.clone() },
            // Without an authority nothing is signed, and a missing certificate cannot be republished.
            (_, _, None) => return Ok(()),
        };
        self.store.write_leaf(identity, pem, now, former.and_then(|former| former.version.as_deref())).await?;
        tracing::info!(%identity, renewed = leaf == LeafUpdate::NewCertificate, "certificate published");
        Ok(())
    }
}
