//! A folder with `ca.crt`, `tls.crt` and `tls.key`, as a Secret is mounted, followed.
//!
//! The kubelet puts a new version of a Secret into a folder of its own and swaps the link `..data` to it. The three files
//! are read through that link's target, so that they are always of one version. In a folder without the link they may
//! be replaced one by one; until they fit together again the former ones stay in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{Identity, Material, MaterialError, Pem, Tls, verify::Live};

/// Where a mounted Secret's files are.
const DATA: &str = "..data";
/// A look without being told: not every file system tells.
const POLL: Duration = Duration::from_secs(10);

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("{}: {source}; it must be a folder with ca.crt, tls.crt and tls.key", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has something else in it.
    #[error("{}: {source}", folder.display())]
    Material {
        /// Which folder.
        folder: PathBuf,
        /// What is wrong.
        source: MaterialError,
    },
}

/// Reads `folder` now and whenever it changes, until the last clone of what is returned is gone. What cannot be read
/// later is logged and leaves the former material in use.
///
/// # Errors
/// When what is there now cannot be used by `identity`.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn follow(folder: &Path, identity: Identity) -> Result<Tls, FolderError> {
    // One mark is enough for any number of changes. Watched before the first look: nothing is missed in between.
    let (mark, marks) = mpsc::channel(1);
    let watcher = watch(folder, mark.clone());
    let pem = read(folder)?;
    let failed = |source| FolderError::Material { folder: folder.to_owned(), source };
    let tls = Tls::new(Material::read(&pem, identity).map_err(failed)?).map_err(failed)?;
    let follower = Follower { folder: folder.to_owned(), identity, live: Arc::clone(&tls.live), current: pem };
    let task = tokio::spawn(async move {
        let _watching = (watcher, mark);
        follower.run(marks).await;
    });
    Ok(tls.with_task(AbortOnDropHandle::new(task)))
}

fn watch(folder: &Path, mark: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let told = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is no change. Full means that a mark is there already.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = mark.try_send(());
        }
    });
    let watching = told.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| tracing::warn!(folder = %folder.display(), %error, "not watched: looked at now and then"))
        .ok()
}

struct Follower {
    folder: PathBuf,
    identity: Identity,
    live: Arc<Live>,
    current: Pem,
}

impl Follower {
    async fn run(mut self, mut marks: mpsc::Receiver<()>) {
        let mut told = None;
        loop {
            // Either way it is time to look.
            let _ = tokio::time::timeout(POLL, marks.recv()).await;
            let folder = self.folder.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || read(&folder)).await else { continue };
            let problem = read.and_then(|pem| self.take(pem)).err().map(|error| error.to_string());
            // Said once, however often it is looked at.
            if let Some(error) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                tracing::warn!(error, "new certificates cannot be used: the former ones stay");
            }
            told = problem;
        }
    }

    fn take(&mut self, pem: Pem) -> Result<(), FolderError> {
        if pem == self.current {
            return Ok(());
        }
        let material = Material::read(&pem, self.identity)
            .map_err(|source| FolderError::Material { folder: self.folder.clone(), source })?;
        self.live.replace(material);
        self.current = pem;
        tracing::info!(folder = %self.folder.display(), "certificates replaced");
        Ok(())
    }
}

/// All three files of one version.
fn read(folder: &Path) -> Result<Pem, FolderError> {
    loop {
        let version = version(folder);
        let read = read_version(&version);
        // The former version may be removed while it is read; then there is another one.
        if read.is_ok() || self::version(folder) == version {
            return read;
        }
    }
}

fn version(folder: &Path) -> PathBuf {
    fs::canonicalize(folder.join(DATA)).unwrap_or_else(|_| folder.to_owned())
}

fn read_version(folder: &Path) -> Result<Pem, FolderError> {
    let file = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| FolderError::Read { path, source })
    };
    Ok(Pem { authorities: file("ca.crt")?, certificate: file("tls.crt")?, key: file("tls.key")? })
}
