//! A watch of a few files in a folder, such as a mounted Secret.
//!
//! The kubelet puts a new version of a Secret into a folder of its own and swaps the link `..data` to it. The files are
//! read through that link's target, so that they are always of one version. In a folder without the link they may be
//! replaced one by one; until they fit together again, the former files stay in use.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Link to the current version of a mounted Secret's files.
const DATA: &str = "..data";
/// Interval of unprompted reads: not every file system reports changes.
const POLL: Duration = Duration::from_secs(10);
/// A change counts when the folder has been quiet for so long,
const QUIET: Duration = Duration::from_millis(300);
/// or when this much time has passed, for a folder that never is.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// Bound on the bytes of a file: the API server accepts no larger Secret.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; it must be a folder with {wanted}", path.display())]
pub struct ReadError {
    /// Path of the file.
    pub path: PathBuf,
    /// Names of all files that the folder must have.
    wanted: String,
    /// Error of the operating system.
    source: io::Error,
}

/// First contents of a folder, watched since before they were read, so that no change is missed. Not `Debug`: the files
/// are secrets.
pub struct Mounted<const N: usize> {
    folder: PathBuf,
    names: [&'static str; N],
    files: [Vec<u8>; N],
    watcher: Option<RecommendedWatcher>,
    mark: mpsc::Sender<()>,
    marks: mpsc::Receiver<()>,
}

/// Watch of a folder, ended when dropped.
#[derive(Debug)]
pub struct Following {
    _task: AbortOnDropHandle<()>,
}

impl<const N: usize> Mounted<N> {
    /// Reads the files of these names.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn open(folder: &Path, names: [&'static str; N]) -> Result<Self, ReadError> {
        // One pending mark stands for any number of changes.
        let (mark, marks) = mpsc::channel(1);
        let watcher = watch(folder, mark.clone());
        let files = read(folder, names)?;
        Ok(Self { folder: folder.to_owned(), names, files, watcher, mark, marks })
    }

    /// The files' contents, in the order of their names.
    #[must_use]
    pub fn files(&self) -> &[Vec<u8>; N] {
        &self.files
    }

    /// Passes the files to `take` after every change. A failure to read or to take them is logged once, and `take` must
    /// leave the former ones in use.
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
        // Without a watcher there are no marks; the retained sender makes that a wait rather than an end.
        let _watching = (self.watcher.take(), self.mark);
        let mut told = None;
        loop {
            // Read the folder after a mark as well as after the interval.
            let _ = tokio::time::timeout(POLL, self.marks.recv()).await;
            // A file that is written in place comes in several steps; a volume of Kubernetes changes in one.
            let settled = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, self.marks.recv()).await {} };
            let _ = tokio::time::timeout(QUIET_MAX, settled).await;
            let (folder, names) = (self.folder.clone(), self.names);
            let Ok(read) = tokio::task::spawn_blocking(move || read(&folder, names)).await else { continue };
            let problem = match read {
                Ok(files) if files == self.files => None,
                Ok(files) => take(&files).map(|()| self.files = files).err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Logged once for each problem.
            if let Some(error) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                let folder = self.folder.display();
                tracing::warn!(%folder, error, "the new content cannot be used; the former stays in use");
            }
            told = problem;
        }
    }
}

fn watch(folder: &Path, mark: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let told = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reads of our own are not changes. If the channel is full, a mark is pending already.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = mark.try_send(());
        }
    });
    let watching = told.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| tracing::warn!(folder = %folder.display(), %error, "changes are not reported by the file system; the folder is read at intervals"))
        .ok()
}

/// All files, of one version.
fn read<const N: usize>(folder: &Path, names: [&'static str; N]) -> Result<[Vec<u8>; N], ReadError> {
    loop {
        let version = version(folder);
        let read = read_version(&version, names);
        // The former version may be removed while it is read; then the newer one is read.
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_in_steps_is_taken_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.yaml");
        fs::write(&path, "former").expect("written");
        let (sender, mut taken) = mpsc::unbounded_channel();
        let mounted = Mounted::open(folder.path(), ["tokens.yaml"]).expect("a file");
        let _following = mounted.follow(move |[file]| sender.send(file.clone()));
        let mut file = fs::File::create(&path).expect("truncated");
        for part in ["the ", "new ", "one"] {
            // The writer is slow, but not as slow as the watch is patient.
            tokio::time::sleep(QUIET / 3).await;
            file.write_all(part.as_bytes()).expect("written");
        }
        let first = tokio::time::timeout(POLL * 2, taken.recv()).await.expect("taken").expect("followed");
        assert_eq!(String::from_utf8_lossy(&first), "the new one");
    }
}
