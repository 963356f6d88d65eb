//! Bundles: converted models on disk, named after their source and settings.
//!
//! A bundle is a folder `DIGEST-FLAVOUR-vVERSION` of the cache with the graph, its weights, `tokenizer.json` and
//! `bundle.json`. It is built in a temporary folder and renamed when complete, under a lock: an existing bundle is
//! complete, and concurrent processes build it once. A process that uses a bundle holds the lock shared, so that the
//! cache (`slm_artifacts`) evicts only unused ones. The lock's mtime is the last use.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    architecture::Architecture,
    block_bits,
    chat::{ChatError, ChatTemplate},
    checkpoint::{Checkpoint, CheckpointError},
    generation::GenerationDefaults,
    graph::{self, Activations, Flavour, Form, GRAPH_FILE, GraphError, Precision, WEIGHTS_FILE},
};

/// Incremented whenever the same checkpoint would give another bundle: another graph, or other defaults.
pub const CONVERTER_VERSION: u32 = 12;

/// Polling interval while another process builds the bundle.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

const BUNDLE_FILE: &str = "bundle.json";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Folder of converted models and of files fetched by set-up: `$SLM_CACHE_DIR`, else `slm-swarm` in `$XDG_CACHE_HOME`
/// or `~/.cache`.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SLM_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("slm-swarm")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache").join("slm-swarm")))
}

/// Content of `bundle.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleInfo {
    /// Digest of the checkpoint, `sha256:…`.
    pub digest: String,
    /// What the checkpoint was converted to.
    #[serde(flatten)]
    pub flavour: Flavour,
    /// Description of the model.
    pub architecture: Architecture,
    /// Sampling defaults and end-of-sequence ids.
    pub generation: GenerationDefaults,
    /// Chat template, if the model has one.
    pub chat_template: Option<ChatTemplate>,
}

/// A complete bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Path of the bundle's folder.
    pub dir: PathBuf,
    /// Content of its `bundle.json`.
    pub info: BundleInfo,
    /// Shared lock that keeps it in the cache.
    _lease: Option<Arc<File>>,
}

/// A bundle cannot be opened or built.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its chat template cannot be parsed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The graph cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The tokenizer cannot be written.
    #[error("writing the tokenizer: {0}")]
    Tokenizer(String),
    /// The cache folder cannot be used.
    #[error("{path}: {source}; free space or choose another cache folder")]
    Cache {
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A bundle folder is incomplete or damaged.
    #[error("{path}: {why}; delete the folder and it will be made again")]
    Damaged {
        /// Path of the folder.
        path: PathBuf,
        /// Description of the damage.
        why: String,
    },
}

/// Requested precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrecisionChoice {
    /// Int4 when the checkpoint's own weights have 4 bits, Int8 when they have 5 to 8, else F32.
    Auto,
    /// This precision.
    Exactly(Precision),
}

fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

impl PrecisionChoice {
    /// Effective precision for `checkpoint`.
    pub fn resolve(self, checkpoint: &Checkpoint) -> Precision {
        match self {
            Self::Exactly(precision) => precision,
            Self::Auto => match checkpoint
                .architecture()
                .path((0, 0))
                .and_then(|path| checkpoint.native_bits(&format!("{path}.weight")))
            {
                Some(..=4) => Precision::Int4,
                Some(_) => Precision::Int8,
                None => Precision::F32,
            },
        }
    }
}

/// Requested flavour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlavourChoice {
    /// Form of the graph.
    pub form: Form,
    /// Type of activations.
    pub activations: Activations,
    /// Requested precision.
    pub precision: PrecisionChoice,
}

impl FlavourChoice {
    /// Effective flavour for `checkpoint`. With 16-bit activations, `Auto` is F16, but Int4 where the file's own 4 bits have no
    /// minimum: those with one would be rounded.
    #[must_use]
    pub fn resolve(self, checkpoint: &Checkpoint) -> Flavour {
        let Self { form, activations, precision } = self;
        let precision = match (precision, precision.resolve(checkpoint), activations) {
            (PrecisionChoice::Auto, Precision::Int4, Activations::F16) if block_bits::holds_first(checkpoint) => {
                Precision::Int4
            }
            (PrecisionChoice::Auto, _, Activations::F16) => Precision::F16,
            (_, precision, _) => precision,
        };
        Flavour { form, precision, activations }
    }
}

/// For the CPU.
impl From<PrecisionChoice> for FlavourChoice {
    fn from(precision: PrecisionChoice) -> Self {
        Self { form: Form::Paged, activations: Activations::F32, precision }
    }
}

/// Location of a bundle in a cache.
struct Cached<'a> {
    cache: &'a Path,
    name: &'a str,
    dir: PathBuf,
}

impl Cached<'_> {
    /// Opens the bundle and locks it; `None` if it does not exist.
    fn open(&self) -> Result<Option<Bundle>, BundleError> {
        if !self.exists() {
            return Ok(None);
        }
        let lock = match self.lock_file() {
            // On a read-only file system it cannot be evicted either.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                return Bundle::open(&self.dir).map(Some);
            }
            lock => lock.map_err(self.error(&self.lock_path()))?,
        };
        lock.lock_shared().map_err(self.error(&self.lock_path()))?;
        if !is_at(&lock, &self.lock_path()) || !self.exists() {
            return Ok(None);
        }
        // Affects only the order of eviction.
        let _ = lock.set_modified(SystemTime::now());
        let _lease = Some(Arc::new(lock));
        Ok(Some(Bundle { _lease, ..Bundle::open(&self.dir)? }))
    }

    /// Builds the bundle, unless another process does.
    fn build(
        &self,
        checkpoint: &Checkpoint,
        flavour: Flavour,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), BundleError> {
        fs::create_dir_all(self.cache).map_err(self.error(self.cache))?;
        let Some(_lock) = self.lock_to_build()? else { return Ok(()) };
        let staging = self.cache.join(format!("{}.partial", self.name));
        // Leftovers of crashes while building or removing.
        for left in [&staging, &self.dir] {
            if left.exists() {
                fs::remove_dir_all(left).map_err(self.error(left))?;
            }
        }
        fs::create_dir_all(&staging).map_err(self.error(&staging))?;
        Bundle::build(checkpoint, flavour, &staging, progress).inspect_err(|_| {
            // Frees space; the error being returned matters more.
            let _ = fs::remove_dir_all(&staging);
            let _ = fs::remove_file(self.lock_path());
        })?;
        // The name must not become durable before the contents.
        sync(&staging).map_err(self.error(&staging))?;
        fs::rename(&staging, &self.dir).map_err(self.error(&self.dir))
    }

    /// The lock for building; `None` once the bundle exists. Waiting for the lock alone would not end, because the
    /// builder keeps it while it uses the bundle.
    fn lock_to_build(&self) -> Result<Option<File>, BundleError> {
        loop {
            let lock = self.lock_file().map_err(self.error(&self.lock_path()))?;
            let locked = match lock.try_lock() {
                Ok(()) => is_at(&lock, &self.lock_path()),
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(self.error(&self.lock_path())(error)),
            };
            if self.exists() {
                return Ok(None);
            }
            if locked {
                return Ok(Some(lock));
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn exists(&self) -> bool {
        self.dir.join(BUNDLE_FILE).exists()
    }

    fn lock_path(&self) -> PathBuf {
        self.cache.join(format!("{}.lock", self.name))
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).read(true).write(true).open(self.lock_path())
    }

    fn error(&self, path: &Path) -> impl FnOnce(io::Error) -> BundleError + use<> {
        let path = path.to_owned();
        move |source| BundleError::Cache { path, source }
    }
}

/// Whether `file` is still the file at `path`: a lock on a removed file excludes no other process.
fn is_at(file: &File, path: &Path) -> bool {
    let same =
        |there: fs::Metadata| file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()));
    fs::metadata(path).is_ok_and(same)
}

impl Bundle {
    /// Opens the bundle folder `dir`.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let damaged = |why: String| BundleError::Damaged { path: dir.into(), why };
        let text = fs::read(dir.join(BUNDLE_FILE)).map_err(|e| damaged(format!("{BUNDLE_FILE}: {e}")))?;
        let info = serde_json::from_slice(&text).map_err(|e| damaged(format!("{BUNDLE_FILE}: {e}")))?;
        Ok(Self { dir: dir.into(), info, _lease: None })
    }

    /// The bundle of `checkpoint` in `cache`, built if necessary. `progress` is called with finished and total layers
    /// while it is built.
    pub fn open_or_build(
        checkpoint: &Checkpoint,
        flavour: impl Into<FlavourChoice>,
        cache: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, BundleError> {
        let flavour = flavour.into().resolve(checkpoint);
        let digest = checkpoint.digest().trim_start_matches("sha256:");
        let name = format!("{digest}-{flavour}-v{CONVERTER_VERSION}").to_lowercase();
        let cached = Cached { cache, dir: cache.join(&name), name: &name };
        loop {
            if let Some(bundle) = cached.open()? {
                return Ok(bundle);
            }
            // Reopened, because it may have been removed between the two locks.
            cached.build(checkpoint, flavour, progress)?;
        }
    }

    /// Builds into the folder `dir`, for `slm convert`.
    pub fn build(
        checkpoint: &Checkpoint,
        flavour: Flavour,
        dir: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), BundleError> {
        if let Some(tokenizer) = checkpoint.tokenizer()? {
            tokenizer
                .save(dir.join(TOKENIZER_FILE), false)
                .map_err(|error| BundleError::Tokenizer(error.to_string()))?;
        }
        graph::build(checkpoint, flavour, dir, progress).map_err(|error| match error {
            GraphError::Write(source) => BundleError::Cache { path: dir.into(), source },
            other => other.into(),
        })?;
        let info = BundleInfo {
            digest: checkpoint.digest().into(),
            flavour,
            architecture: checkpoint.architecture().clone(),
            generation: checkpoint.generation().clone(),
            chat_template: checkpoint.chat_template()?,
        };
        let path = dir.join(BUNDLE_FILE);
        let json = serde_json::to_vec_pretty(&info).map_err(io::Error::other);
        json.and_then(|json| fs::write(&path, json)).map_err(|source| BundleError::Cache { path, source })
    }

    /// Path of the graph file.
    pub fn graph(&self) -> PathBuf {
        self.dir.join(GRAPH_FILE)
    }

    /// Bytes of the weights.
    ///
    /// # Errors
    /// The weight file is gone.
    pub fn weight_bytes(&self) -> Result<u64, BundleError> {
        match self.dir.join(WEIGHTS_FILE).metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(BundleError::Damaged { path: self.dir.clone(), why: format!("{WEIGHTS_FILE}: {error}") }),
        }
    }

    /// The tokenizer, if the model has one.
    pub fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, BundleError> {
        let path = self.dir.join(TOKENIZER_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |why| BundleError::Damaged { path: self.dir.clone(), why };
        tokenizers::Tokenizer::from_file(&path).map(Some).map_err(|e| damaged(format!("{TOKENIZER_FILE}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn cached(cache: &Path) -> Cached<'_> {
        Cached { cache, name: "x", dir: cache.join("x") }
    }

    #[test]
    fn a_builder_does_not_wait_for_the_users_of_what_another_built() {
        let cache = tempfile::tempdir().unwrap();
        let (told, hears) = mpsc::channel();
        let first = cached(cache.path());
        // The builder uses the bundle before the other process has the lock.
        let in_use = first.lock_file().unwrap();
        in_use.lock_shared().unwrap();
        fs::create_dir_all(&first.dir).unwrap();
        fs::write(first.dir.join(BUNDLE_FILE), "{}").unwrap();
        let path = cache.path().to_owned();
        // Not joined, so that the test ends even if the thread waits for ever.
        thread::spawn(move || told.send(cached(&path).lock_to_build().map(|lock| lock.is_some())));
        let second = hears.recv_timeout(Duration::from_secs(10)).expect("an end of the wait");
        assert!(!second.unwrap(), "it is there: nothing to build");
    }
}
