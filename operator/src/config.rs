//! How an operator is run.

use std::{net::SocketAddr, time::Duration};

/// Settings of an operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace whose objects it turns into workers: one swarm, one namespace.
    pub namespace: String,
    /// Its name among its replicas, which no other one has: the pod's name, or [`unique_identity`].
    pub identity: String,
    /// What the workers' pods are made of.
    pub workers: WorkerPods,
    /// Address of its own probes and metrics.
    pub probes: SocketAddr,
}

/// A name that no other operator has: this machine's, and something drawn by lot.
#[must_use]
pub fn unique_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    let lot = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", host.as_deref().unwrap_or("slm-operator"), &lot[..8])
}

/// What the workers' pods are made of.
#[derive(Clone, Debug)]
pub struct WorkerPods {
    /// Image of workers on CPUs.
    pub image: String,
    /// As of a container.
    pub image_pull_policy: Option<String>,
    /// As of a pod.
    pub image_pull_secrets: Vec<String>,
    /// Claim that keeps artifacts and converted models, shared by the workers of a node. Unset: each pod has its own.
    pub cache_claim: Option<String>,
    /// Bytes of artifacts that a cache keeps at most.
    pub artifacts_bytes_max: u64,
    /// Mutual TLS with them, by certificates that are minted and renewed so. Unset: plain text.
    pub certificates: Option<Certificates>,
    /// Registries and servers, as HOST or HOST:PORT, that are spoken to without TLS.
    pub insecure_hosts: Vec<String>,
    /// Value of RUST_LOG.
    pub log: String,
}

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// One of an operator, a router or a worker.
    pub lifetime: Duration,
    /// The authority's.
    pub authority_lifetime: Duration,
    /// How long a changed Secret takes to reach every pod that has it mounted.
    pub propagation: Duration,
}

impl Certificates {
    /// Whether everybody can have a new one before an old one ends. Renewal begins when a third of a life is left.
    ///
    /// # Errors
    /// Names what is too short.
    pub fn check(&self) -> Result<(), String> {
        // Within the last third, one after the other: an authority is introduced, a Secret that was lost is spread, and a
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
