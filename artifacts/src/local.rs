//! Artifacts used in place: `file:` and `pvc://`.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::FetchError;

/// Absolute path of a local file or folder.
pub(crate) fn file(uri: &str, path: &Path) -> Result<PathBuf, FetchError> {
    path.canonicalize().map_err(|error| missing(uri, path, error))
}

/// Path of a file or folder on a claim that is mounted at `ROOT/CLAIM`.
///
/// The result is free of symbolic links, so that the checked path is the opened one.
pub(crate) fn claim(uri: &str, root: &Path, claim: &str, path: &Path) -> Result<PathBuf, FetchError> {
    let mount = root.join(claim);
    let mount = mount.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FetchError::NotFound {
            uri: uri.to_owned(),
            message: format!("claim {claim} is not mounted at {}; mount it there", mount.display()),
        },
        _ => FetchError::io(uri, &mount, error),
    })?;
    let wanted = mount.join(path);
    let found = wanted.canonicalize().map_err(|error| missing(uri, &wanted, error))?;
    if !found.starts_with(&mount) {
        let message = format!("{} is a link to {}, outside of the claim", wanted.display(), found.display());
        return Err(FetchError::bad(uri, message));
    }
    Ok(found)
}

fn missing(uri: &str, path: &Path, error: io::Error) -> FetchError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FetchError::NotFound { uri: uri.to_owned(), message: format!("{} does not exist", path.display()) }
        }
        _ => FetchError::io(uri, path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn claims_are_left_by_no_path() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("models");
        fs::create_dir_all(mount.join("a")).unwrap();
        fs::write(mount.join("a/x.gguf"), "x").unwrap();
        fs::write(root.path().join("secret"), "s").unwrap();
        symlink("a/x.gguf", mount.join("inside")).unwrap();
        symlink("../secret", mount.join("outside")).unwrap();
        symlink("..", mount.join("up")).unwrap();
        let found = |path: &str| claim("pvc://models", root.path(), "models", Path::new(path));
        let mount = mount.canonicalize().unwrap();
        assert_eq!(found("").unwrap(), mount);
        assert_eq!(found("a/x.gguf").unwrap(), mount.join("a/x.gguf"));
        assert_eq!(found("inside").unwrap(), mount.join("a/x.gguf"));
        for path in ["outside", "up/secret"] {
            let error = found(path).unwrap_err();
            assert_eq!(error.reason(), "BadReference");
            assert!(error.to_string().contains("outside of the claim"), "{error}");
        }
        assert!(found("b").unwrap_err().to_string().ends_with("models/b does not exist"));
        let error = claim("pvc://other/x", root.path(), "other", Path::new("x")).unwrap_err();
        assert!(error.to_string().contains("claim other is not mounted at"), "{error}");
    }
}
