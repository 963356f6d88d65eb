//! Who a process of a swarm is, as its certificate says.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// A role in the swarm. A certificate has exactly one, as its only DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Loads and drops adapters.
    Operator,
    /// Sends requests to workers.
    Router,
    /// Serves a model.
    Worker,
}

impl Identity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Router, Self::Worker];

    /// The DNS name in its certificate. It resolves nowhere.
    #[must_use]
    pub fn dns_name(self) -> &'static str {
        match self {
            Self::Operator => "operator.slm-swarm.internal",
            Self::Router => "router.slm-swarm.internal",
            Self::Worker => "worker.slm-swarm.internal",
        }
    }

    /// Whose certificate it is: `None` for one that names nobody of a swarm, or more than one name.
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
        })
    }
}
