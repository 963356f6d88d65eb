//! Configuration of an operator.

use std::{net::SocketAddr, time::Duration};

/// Settings of an operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace whose objects the operator reconciles: one swarm, one namespace.
    pub namespace: String,
    /// Unique name among the operator's replicas: the pod's name, or [`unique_identity`].
    pub identity: String,
    /// Settings common to all worker pods.
    pub workers: WorkerPods,
    /// Listen address of the operator's probes and metrics.
    pub probes: SocketAddr,
}

/// A unique name: the host's, and a random suffix.
#[must_use]
pub fn unique_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    let lot = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", host.as_deref().unwrap_or("slm-operator"), &lot[..8])
}

/// Settings common to all worker pods.
#[derive(Clone, Debug)]
pub struct WorkerPods {
    /// Image of workers on CPUs.
    pub image: String,
    /// Pull policy of the worker's container.
    pub image_pull_policy: Option<String>,
    /// Pull secrets of the worker pods.
    pub image_pull_secrets: Vec<String>,
    /// Claim that keeps artifacts and converted models, shared by the workers of a node. Unset: each pod has an
    /// emptyDir.
    pub cache_claim: Option<String>,
    /// Bound on the cache's bytes.
    pub artifacts_bytes_max: u64,
    /// Lifetimes of the certificates for mutual TLS with workers. Unset: plain text.
    pub certificates: Option<Certificates>,
    /// Registries and servers, as HOST or HOST:PORT, that are reached without TLS.
    pub insecure_hosts: Vec<String>,
    /// Server of `hf:` sources, `https://HOST`.
    pub hub_endpoint: String,
    /// Server of `s3:` sources, `https://HOST`. Unset: Amazon's.
    pub s3_endpoint: Option<String>,
    /// Value of RUST_LOG.
    pub log: String,
}

/// Lifetimes of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Lifetime of the certificate of an operator, a router or a worker.
    pub lifetime: Duration,
    /// Lifetime of the authority.
    pub authority_lifetime: Duration,
    /// Time until a changed Secret has reached every pod that mounts it.
    pub propagation: Duration,
}

impl Certificates {
    /// Whether renewal, which begins with the last third of a lifetime, reaches every process in time.
    ///
    /// # Errors
    /// Names the lifetime that is too short.
    pub fn check(&self) -> Result<(), String> {
        // Within the last third, in sequence: an authority is introduced, a lost Secret is distributed, and a
        // certificate is renewed.
        if self.lifetime < self.propagation.saturating_mul(9) {
            return Err(format!(
                "certificates that live {} s are too short for Secrets that take {} s to reach pods; at least 9 times as long",
                self.lifetime.as_secs(),
                self.propagation.as_secs()
            ));
        }
        if self.authority_lifetime < self.lifetime.saturating_mul(6) {
            return Err(format!(
                "an authority that lives {} s is too short for certificates that live {} s; at least 6 times as long",
                self.authority_lifetime.as_secs(),
                self.lifetime.as_secs()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_operators_have_one_identity() {
        let [one, other] = [unique_identity(), unique_identity()];
        assert!(one != other && one.len() > 9, "{one} {other}");
    }

    #[test]
    fn lives_fit_into_each_other() {
        let [minute, hour, day] = [60, 3_600, 86_400].map(Duration::from_secs);
        let check = |lifetime, authority_lifetime, propagation| {
            Certificates { lifetime, authority_lifetime, propagation }.check()
        };
        assert_eq!(check(day, day * 3_650, minute * 5), Ok(()));
        assert!(check(minute * 5, day, minute).is_err_and(|why| why.contains("300 s")));
        assert!(check(hour, hour * 5, minute).is_err_and(|why| why.contains("authority")));
    }
}
