//! Requests to a worker about its adapters.

use crate::version::Version;

/// One request to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum AdapterAction {
    /// Load an adapter, beside or in place of what has its name. A load of that name that runs is cancelled.
    Load {
        /// Name of the adapter.
        name: String,
        /// The version to load.
        version: Version,
    },
    /// Cancel a load that runs: the adapter is no longer desired.
    Cancel {
        /// Name of the adapter.
        name: String,
    },
    /// Unload an adapter.
    Unload {
        /// Name of the adapter.
        name: String,
        /// Digest of the version to unload.
        digest: String,
    },
}
