//! Custom resources of `slmswarm.io`.
//!
//! Everything derives from one definition in Rust: the CRDs that a cluster applies (`crds/yaml`, generated and checked
//! for drift), and the local validation of manifests, which uses the same schema and evaluates the same CEL rules. So a
//! manifest that `slm up` refuses would be refused by an API server with the same message.
//!
//! Pure: reads files and nothing else; no cluster, no network, no async.
//!
//! Modules, in the order in which a manifest meets them:
//! - [`model`], [`adapter`], [`route`], [`external`], [`accelerator`]: the kinds, and [`source`], [`pod`], [`expert`], [`status`],
//!   their parts, as [`ensemble`] and [`retrieve`] are of a route;
//! - [`rule`]: CEL conditions of routes, compiled and evaluated;
//! - [`names`]: the shared namespace of names, and references; [`hosts`]: where the token of a Secret may be sent;
//! - [`schema`]: the CRDs of these types;
//! - [`yaml`]: text to a tree with line numbers; [`manifest`]: files to validated objects.

pub mod accelerator;
pub mod adapter;
pub mod ensemble;
pub mod expert;
pub mod external;
pub mod hosts;
pub mod model;
pub mod pod;
pub mod retrieve;
pub mod route;
pub mod source;
pub mod status;

pub mod names;
pub mod nearest;
pub mod rule;
pub mod schema;
pub mod secret_file;
pub mod selection;
pub mod yaml;

pub mod manifest;

mod validation;

pub use accelerator::{AcceleratorProfile, AcceleratorProfileSpec};
pub use adapter::{LoraAdapter, LoraAdapterSpec};
pub use external::{ExternalModel, ExternalModelSpec};
pub use model::{SlmModel, SlmModelSpec};
pub use route::{SwarmRoute, SwarmRouteSpec};

/// API group of every kind.
pub const GROUP: &str = "slmswarm.io";
/// The only version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every manifest.
pub const API_VERSION: &str = "slmswarm.io/v1alpha1";
