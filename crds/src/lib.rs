//! The kinds of `slmswarm.io`: what a person writes down to get a swarm.
//!
//! One definition in Rust makes everything else: the CRDs that a cluster applies (`crds/yaml`, generated and checked
//! for drift), and the local check of manifests, which walks the very same schema and evaluates the very same CEL
//! rules. So a manifest that `slm up` refuses would be refused by an API server too, in the same words.
//!
//! Pure: it reads files and nothing else; no cluster, no network, no async.
//!
//! In the order in which a manifest meets them:
//! - [`model`], [`adapter`], [`route`], [`accelerator`]: the kinds, with [`source`], [`pod`], [`expert`], [`status`] as
//!   their parts;
//! - [`rule`]: the CEL conditions of a route, compiled and evaluated;
//! - [`names`]: the one space of names, and references into it;
//! - [`schema`]: the CRDs, from these types;
//! - [`yaml`]: text to a tree whose nodes know their line; [`manifest`]: files to checked objects that do.

pub mod accelerator;
pub mod adapter;
pub mod expert;
pub mod model;
pub mod pod;
pub mod route;
pub mod source;
pub mod status;

pub mod names;
pub mod nearest;
pub mod rule;
pub mod schema;
pub mod yaml;

pub mod manifest;

mod validation;

pub use accelerator::{AcceleratorProfile, AcceleratorProfileSpec};
pub use adapter::{LoraAdapter, LoraAdapterSpec};
pub use model::{SlmModel, SlmModelSpec};
pub use route::{SwarmRoute, SwarmRouteSpec};

/// API group of every kind.
pub const GROUP: &str = "slmswarm.io";
/// The one version there is.
pub const VERSION: &str = "v1alpha1";
/// What a manifest's `apiVersion` has to say.
pub const API_VERSION: &str = "slmswarm.io/v1alpha1";
