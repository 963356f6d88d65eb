//! Search and loading of `libonnxruntime.so`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Environment variable with the path of the library.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// File name on this platform; wheels append the version.
const LIBRARY_NAME: &str = if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// The loaded library and its environment, one for each process.
#[derive(Clone)]
pub struct Runtime {
    pub(super) environment: ort::environment::Environment,
    path: PathBuf,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("path", &self.path).finish_non_exhaustive()
    }
}

/// ONNX Runtime is not available.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The library was not found.
    #[error(
        "ONNX Runtime was not found: {LIBRARY_VARIABLE} is not set and none of these has {LIBRARY_NAME}: {}. \
         Run `make setup`, or `pip install onnxruntime` and set {LIBRARY_VARIABLE} to the file in its `capi` folder",
        places(.searched)
    )]
    NotFound {
        /// Searched folders, in order.
        searched: Vec<PathBuf>,
    },
    /// `ORT_DYLIB_PATH` points to no file.
    #[error("{LIBRARY_VARIABLE}={path}: no such file; set it to a libonnxruntime of version 1.24 or newer")]
    NoSuchFile {
        /// Path in the variable.
        path: PathBuf,
    },
    /// The library does not load, or is too old.
    #[error("{path}: {why}; a libonnxruntime of version 1.24 or newer is needed")]
    Unusable {
        /// Path of the library.
        path: PathBuf,
        /// Message of the loader.
        why: String,
    },
}

fn places(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Runtime {
    /// Loads the library of [`find`](Self::find) once; later calls return the same.
    pub fn load() -> Result<Self, LibraryError> {
        static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let path = Self::find()?;
        let unusable = |why: String| LibraryError::Unusable { path: path.clone(), why };
        let environment = ort::init_from(&path)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("slm")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        let runtime = Self { environment, path };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// Path of the library: that of `ORT_DYLIB_PATH`, else the first found beside the executable, in `lib` beside it,
    /// and in the project's cache.
    pub fn find() -> Result<PathBuf, LibraryError> {
        if let Some(path) = env::var_os(LIBRARY_VARIABLE).filter(|p| !p.is_empty()).map(PathBuf::from) {
            return if path.is_file() { Ok(path) } else { Err(LibraryError::NoSuchFile { path }) };
        }
        let mut searched = Vec::new();
        if let Some(dir) = env::current_exe().ok().as_deref().and_then(Path::parent) {
            searched.extend([dir.to_owned(), dir.join("lib")]);
        }
        searched.extend(slm_convert::bundle::cache_dir().map(|cache| cache.join("onnxruntime")));
        searched.iter().find_map(|dir| library_in(dir)).ok_or(LibraryError::NotFound { searched })
    }

    /// Path of the loaded library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Version and build of the loaded library.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

/// `libonnxruntime.so`, or the newest `libonnxruntime.so.X.Y.Z`, in `dir`.
fn library_in(dir: &Path) -> Option<PathBuf> {
    let exact = dir.join(LIBRARY_NAME);
    if exact.is_file() {
        return Some(exact);
    }
    let versioned = format!("{LIBRARY_NAME}.");
    let names = fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let newest = names.filter(|name| name.starts_with(&versioned)).max()?;
    Some(dir.join(newest))
}
