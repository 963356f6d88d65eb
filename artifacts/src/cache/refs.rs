//! References: the last known version of a tag or URL.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Cache;
use crate::validators::Validators;

/// Last known version of a tag or URL.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ref {
    /// The tag or URL, for humans.
    pub(crate) source: String,
    /// Key of its entry.
    pub(crate) key: String,
    /// Validators for a conditional request.
    pub(crate) validators: Validators,
}

impl Cache {
    /// `None` if it was never resolved.
    pub(crate) fn read_ref(&self, name: &str) -> Option<Ref> {
        let text = fs::read_to_string(self.ref_path(name)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Replaces it atomically.
    pub(crate) fn write_ref(&self, name: &str, to: &Ref) -> io::Result<()> {
        let path = self.ref_path(name);
        let partial = path.with_extension(format!("{:016x}", rand::random::<u64>()));
        let mut file = File::create_new(&partial)?;
        file.write_all(&serde_json::to_vec(to)?)?;
        file.sync_all()?;
        fs::rename(partial, path)
    }

    fn ref_path(&self, name: &str) -> PathBuf {
        self.refs().join(format!("{}.json", hashed(name)))
    }
}

/// A file name for a name of any characters and length.
pub(crate) fn hashed(name: &str) -> String {
    hex::encode(Sha256::digest(name.as_bytes()))
}
