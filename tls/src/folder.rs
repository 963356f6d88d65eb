//! A watched folder with `ca.crt`, `tls.crt` and `tls.key` of a process of the swarm.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Identity, Material, MaterialError, Pem, Tls,
    mounted::{Mounted, ReadError},
};

/// Reason why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file has invalid content.
    #[error("{}: {source}", folder.display())]
    Material {
        /// Path of the folder.
        folder: PathBuf,
        /// Error of the content.
        source: MaterialError,
    },
}

/// Reads `folder` now and after every change, until the last clone of the result is dropped. If later content is
/// invalid, that is logged and the former material stays in use.
///
/// # Errors
/// The present content cannot be used by `identity`.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn follow(folder: &Path, identity: Identity) -> Result<Tls, FolderError> {
    let mounted = Mounted::open(folder, ["ca.crt", "tls.crt", "tls.key"])?;
    let failed = |source| FolderError::Material { folder: folder.to_owned(), source };
    let tls = Tls::new(material(mounted.files(), identity).map_err(failed)?).map_err(failed)?;
    let (live, folder) = (Arc::clone(&tls.live), folder.display().to_string());
    let following = mounted.follow(move |files| {
        live.replace(material(files, identity)?);
        tracing::info!(folder, "certificates replaced");
        Ok::<_, MaterialError>(())
    });
    Ok(tls.following(following))
}

fn material(files: &[Vec<u8>; 3], identity: Identity) -> Result<Material, MaterialError> {
    let [authorities, certificate, key] = files.clone();
    Material::read(&Pem { authorities, certificate, key }, identity)
}
