//! The boundary of the swarm, as types: what asks under [`LocalOnly`] cannot hold a model outside.
//!
//! A request is dispatched as a function of one [`Boundary`], chosen once, before anything is sent: its retries, its cascade and its
//! fallback take the same one. Under [`LocalOnly`] the variant [`Upstream::Egress`] has no value, because its type has none, and the
//! compiler knows it:
//!
//! ```compile_fail,E0308
//! use slm_router::boundary::{LocalOnly, Permitted, Upstream};
//!
//! fn out(permitted: Permitted) -> Upstream<LocalOnly> {
//!     Upstream::Egress(permitted)
//! }
//! ```
//!
//! The same under [`MayLeave`] compiles:
//!
//! ```
//! use slm_router::boundary::{MayLeave, Permitted, Upstream};
//!
//! fn out(permitted: Permitted) -> Upstream<MayLeave> {
//!     Upstream::Egress(permitted)
//! }
//! ```
//!
//! A [`Permitted`] is made by [`MayLeave`] alone, and a [`MayLeave`] only of a policy that lets something out.

use std::sync::Arc;

use slm_crds::route::DataPolicy;

use crate::view::Worker;

/// What a request may reach.
pub trait Boundary: Copy + Send + Sync + 'static {
    /// A permission to ask the egress. A type without values where nothing may leave.
    type Egress: Into<Permitted> + Send + Sync + 'static;

    /// The laxest policy within it.
    #[doc(hidden)]
    fn limit(self) -> DataPolicy;

    /// The permission, where there is one.
    #[doc(hidden)]
    fn permit(self, egress: Egress, errand: Errand) -> Option<Self::Egress>;
}

/// Nothing leaves the swarm.
#[derive(Clone, Copy, Debug)]
pub struct LocalOnly;

/// Models outside may be asked.
#[derive(Clone, Copy, Debug)]
pub struct MayLeave {
    /// Never LocalOnly.
    policy: DataPolicy,
}

/// No value at all.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

/// One that calls models outside: what a view knows of it.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Egress(pub(crate) Arc<Worker>);

/// Why a request leaves, for the record of it.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Errand {
    pub(crate) route: String,
    pub(crate) reason: String,
    /// As it is now: a route may have become stricter since the boundary was chosen.
    pub(crate) policy: DataPolicy,
}

/// A permission to ask a model outside through one egress.
#[derive(Debug)]
pub struct Permitted {
    egress: Egress,
    errand: Errand,
    redact: bool,
}

/// Where a request is sent.
#[derive(Debug)]
pub enum Upstream<B: Boundary> {
    /// A worker of the swarm.
    Worker(WorkerRef),
    /// A model outside.
    Egress(B::Egress),
}

/// A worker of the swarm.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct WorkerRef(pub(crate) Arc<Worker>);

/// The boundary of a policy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds {
    Within(LocalOnly),
    Beyond(MayLeave),
}

impl From<DataPolicy> for Bounds {
    fn from(policy: DataPolicy) -> Self {
        match policy {
            DataPolicy::LocalOnly => Self::Within(LocalOnly),
            DataPolicy::Redacted | DataPolicy::AllowExternal => Self::Beyond(MayLeave { policy }),
        }
    }
}

impl Boundary for LocalOnly {
    type Egress = Never;

    fn limit(self) -> DataPolicy {
        DataPolicy::LocalOnly
    }

    fn permit(self, _: Egress, _: Errand) -> Option<Never> {
        None
    }
}

impl Boundary for MayLeave {
    type Egress = Permitted;

    fn limit(self) -> DataPolicy {
        self.policy
    }

    fn permit(self, egress: Egress, errand: Errand) -> Option<Permitted> {
        let redact = match errand.policy.min(self.policy) {
            DataPolicy::LocalOnly => return None,
            DataPolicy::Redacted => true,
            DataPolicy::AllowExternal => false,
        };
        Some(Permitted { egress, errand, redact })
    }
}

impl From<Never> for Permitted {
    fn from(never: Never) -> Self {
        match never {}
    }
}

impl Permitted {
    pub(crate) fn egress(&self) -> &Arc<Worker> {
        &self.egress.0
    }

    /// Whether personal data and secrets are replaced before the request leaves.
    pub(crate) fn redact(&self) -> bool {
        self.redact
    }

    pub(crate) fn errand(&self) -> &Errand {
        &self.errand
    }
}

impl Upstream<LocalOnly> {
    /// The worker, which it always is.
    pub(crate) fn worker(self) -> Arc<Worker> {
        match self {
            Self::Worker(WorkerRef(worker)) => worker,
            Self::Egress(never) => match never {},
        }
    }
}
