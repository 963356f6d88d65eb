//! By which servers tell versions apart.

use serde::{Deserialize, Serialize};

/// By which a server tells one version of a file from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl Validators {
    /// A weak tag says that two versions mean the same, not that their bytes are.
    pub(crate) fn if_range(&self) -> Option<String> {
        let strong = self.etag.as_ref().filter(|tag| !tag.starts_with("W/"));
        strong.or(self.last_modified.as_ref().filter(|_| self.etag.is_none())).cloned()
    }
}
