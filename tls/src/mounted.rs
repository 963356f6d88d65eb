//! A few files of one folder, as a Secret is mounted, followed.
//!
//! The kubelet puts a new version of a Secret into a folder of its own and swaps the link `..data` to it. The files are
//! read through that link's target, so that they are always of one version. In a folder without the link they may be
//! replaced one by one; until they fit together again the former ones stay in use.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Where a mounted Secret's files are.
const DATA: &str = "..data";
/// A look without being told: not every file system tells.
const POLL: Duration = Duration::from_secs(10);
/// Bytes of one file. The API server takes no Secret that is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; it must be a folder with {wanted}", path.display())]
pub struct ReadError {
    /// Which.
    pub path: PathBuf,
    /// All that the folder must have.
    wanted: String,
    /// What the system said.
    source: io::Error,
}

/// What a folder had when it was first read, watched since before that: nothing is missed in between.
/// Not `Debug`: the files are secrets.
pub struct Mounted<const N: usize> {
    folder: PathBuf,
    names: [&'static str; N],
    files: [Vec<u8>; N],
    watcher: Option<RecommendedWatcher>,
    mark: mpsc::Sender<()>,
    marks: mpsc::Receiver<()>,
}

/// Follows a folder until it is dropped.
#[derive(Debug)]
pub struct Following {
    _task: AbortOnDropHandle<()>,
}

impl<const N: usize> Mounted<N> {
    /// Reads the files of these names.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(folder: &Path, names: [&'static str; N]) -> Result<Self, ReadError> {
        // One mark is enough for any number of changes.
        let (mark, marks) = mpsc::channel(1);
        let watcher = watch(folder, mark.clone());
        let files = read(folder, names)?;
        Ok(Self { folder: folder.to_owned(), names, files, watcher, mark, marks })
    }

    /// What they hold, in the order of their names.
    #[must_use]
    pub fn files(&self) -> &[Vec<u8>; N] {
        &self.files
    }

    /// Gives `take` the files whenever one of them has changed. What cannot be read or taken is logged, once, and `take`
    /// must leave the former in use.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn follow<E: fmt::Display + 'static>(
        self,
        take: impl FnMut(&[Vec<u8>; N]) -> Result<(), E> + Send + 'static,
    ) -> Following {
        Following { _task: AbortOnDropHandle::new(tokio::spawn(self.run(take))) }
    }

    async fn run<E: fmt::Display>(mut self, mut take: impl FnMut(&[Vec<u8>; N]) -> Result<(), E>) {
        // Without a watcher nobody marks, and the sender that is kept makes that a wait rather than an end.
        let _watching = (self.watcher.take(), self.mark);
        let mut told = None;
        loop {
            // Either way it is time to look.
            let _ = tokio::time::timeout(POLL, self.marks.recv()).await;
            let (folder, names) = (self.folder.clone(), self.names);
            let Ok(read) = tokio::task::spawn_blocking(move || read(&folder, names)).await else { continue };
            let problem = match read {
                Ok(files) if files == self.files => None,
                Ok(files) => take(&files).map(|()| self.files = files).err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Said once, however often it is looked at.
            if let Some(error) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                let folder = self.folder.display();
                tracing::warn!(%folder, error, "what is there now cannot be used: the former stays");
            }
            told = problem;
        }
    }
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

/// All files of one version.
fn read<const N: usize>(folder: &Path, names: [&'static str; N]) -> Result<[Vec<u8>; N], ReadError> {
    loop {
        let version = version(folder);
        let read = read_version(&version, names);
        // The former version may be removed while it is read; then there is another one.
        if read.is_ok() || self::version(folder) == version {
            return read;
        }
    }
}

fn version(folder: &Path) -> PathBuf {
    fs::canonicalize(folder.join(DATA)).unwrap_or_else(|_| folder.to_owned())
}

fn read_version<const N: usize>(folder: &Path, names: [&'static str; N]) -> Result<[Vec<u8>; N], ReadError> {
    let mut files = [const { Vec::new() }; N];
    for (file, name) in files.iter_mut().zip(names) {
        let path = folder.join(name);
        *file = bytes(&path).map_err(|source| ReadError { path, wanted: names.join(", "), source })?;
    }
    Ok(files)
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("has {size} bytes, more than the {FILE_BYTES_MAX} of a Secret")));
    }
    fs::read(path)
}
