//! Models and adapters from where they are published to a path on this machine.
//!
//! [`Store::fetch`] takes a URI and gives an [`Artifact`]: a path, the digest under which it was verified, and a lease
//! that keeps it in the cache while it is used. `file:` and `pvc://` are used in place; `https://` and `oci://` are
//! downloaded into a cache that any number of processes and pods may share. docs/artifacts.md is for its users.
//!
//! # Guarantees
//! - Nothing is unpacked or handed out before its bytes have the digest that was asked for, or that the registry's
//!   manifest names.
//! - An entry of the cache is whole or is not there. A crash at any moment leaves at most a partial download, which the
//!   next fetch continues.
//! - Two that want the same artifact download it once; the second one waits.
//! - What an [`Artifact`] holds is not evicted, by no process, until it is dropped.
//!
//! # What it is not
//! It does not know what a model is. The digest of an artifact here is that of its transport (the file, the archive or
//! the manifest), not the one over a model's content that workers report.
//!
//! Modules, in the order in which a fetch meets them:

mod digest;
mod oci_reference;
mod source;

mod authorization;
mod credentials;
mod error;
mod progress;

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
pub use store::{PVC_ROOT, Store, StoreConfig};

/// Doors for the fuzz targets, which see no private item.
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
