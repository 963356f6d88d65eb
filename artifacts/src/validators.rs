//! HTTP validators: ETag and Last-Modified.

use serde::{Deserialize, Serialize};

/// Validators by which a server tells versions of a file apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl Validators {
    /// Value of If-Range. A weak tag means equivalent versions, not identical bytes.
    pub(crate) fn if_range(&self) -> Option<String> {
        let strong = self.etag.as_ref().filter(|tag| !tag.starts_with("W/"));
        strong.or(self.last_modified.as_ref().filter(|_| self.etag.is_none())).cloned()
    }
}
