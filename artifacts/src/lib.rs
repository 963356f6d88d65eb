//! Artifact store: fetches models and adapters from their source to a path on this machine.
//!
//! [`Store::fetch`] takes a URI and gives an [`Artifact`]: a path, the verified digest, and a lease that keeps it in
//! the cache while it is used. `file:` and `pvc://` are used in place; `https://`, `oci://`, `hf://`, `s3://`, `gs://` and `az://` are downloaded into a
//! cache that any number of processes and pods may share. See docs/artifacts.md.
//!
//! # Guarantees
//! - Nothing is unpacked or handed out before its bytes have the requested digest, or the one in the registry's
//!   manifest.
//! - A cache entry is complete or absent. A crash leaves at most a partial download, which the next fetch continues.
//! - Concurrent fetches of an artifact download it once; the others wait.
//! - No process evicts an artifact while an [`Artifact`] refers to it.
//!
//! # What it is not
//! It does not know what a model is. The digest of an artifact here is that of its transport (the file, the archive or
//! the manifest), not the one over a model's content that workers report.
//!
//! Modules, in the order in which a fetch meets them:

mod bucket_reference;
mod digest;
mod hub_reference;
mod oci_reference;
mod source;

mod authorization;
mod credentials;
mod error;
mod progress;

mod bucket;
mod files;
mod hub;
mod local;
mod oci;
mod web;

mod http;

mod part;
mod request;
mod stage;
mod unpack;

mod artifact;
mod cache;
mod validators;

mod store;

pub use artifact::Artifact;
pub use credentials::{CredentialError, Credentials};
pub use error::FetchError;
pub use http::retry::RetryPolicy;
pub use progress::{Phase, Progress};
pub use source::Source;
pub use store::{HUB_ENDPOINT, PVC_ROOT, Store, StoreConfig};

/// Entry points of the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use std::path::Path;

    use crate::unpack::{self, Limits, Packing};

    /// Unpacks an archive into a folder that is there and empty; whether it could.
    #[must_use]
    pub fn unpack(archive: &Path, is_gzip: bool, into: &Path, bytes_max: u64) -> bool {
        let packing = if is_gzip { Packing::TarGzip } else { Packing::Tar };
        unpack::unpack(archive, packing, into, &Limits::new(bytes_max)).is_ok()
    }
}
