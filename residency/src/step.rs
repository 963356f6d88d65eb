//! What a worker can be asked for.

use crate::version::Version;

/// One thing to ask of a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Load an adapter, beside or in place of what has its name. A load of that name that runs is cancelled.
    Load {
        /// Its name.
        name: String,
        /// What is wanted.
        version: Version,
    },
    /// Wait no longer for a load: nobody wants that adapter any more.
    Cancel {
        /// Its name.
        name: String,
    },
    /// Drop an adapter.
    Unload {
        /// Its name.
        name: String,
        /// The version that is meant.
        digest: String,
    },
}
