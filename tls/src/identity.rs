//! Identity of a process of a swarm: the role in its certificate.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// A role in the swarm. A certificate has exactly one, as its only DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Loads and unloads adapters.
    Operator,
    /// Sends requests to workers.
    Router,
    /// Serves a model.
    Worker,
    /// Asks models outside of the swarm.
    Egress,
}

impl Identity {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Router, Self::Worker, Self::Egress];

    /// DNS name in the role's certificate. It does not resolve.
    #[must_use]
    pub fn dns_name(self) -> &'static str {
        match self {
            Self::Operator => "operator.slm-swarm.internal",
            Self::Router => "router.slm-swarm.internal",
            Self::Worker => "worker.slm-swarm.internal",
            Self::Egress => "egress.slm-swarm.internal",
        }
    }

    /// Role of a certificate: `None` without a role's name, or with several names.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_dns_names();
        let name = names.next()?;
        if names.next().is_some() {
            return None;
        }
        Self::ALL.into_iter().find(|identity| identity.dns_name() == name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Operator => "operator",
            Self::Router => "router",
            Self::Worker => "worker",
            Self::Egress => "egress",
        })
    }
}
