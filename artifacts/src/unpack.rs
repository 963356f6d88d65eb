//! Unpacking of archives: every entry is checked before it is written, and total sizes are bounded.

mod bounded;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::cache::remove;
use bounded::Bounded;

/// Bound on the entries of an artifact's archives together.
const ENTRIES_MAX: u64 = 100_000;
/// Bound on the bytes of names and other headers before an entry's content.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Tar,
    TarGzip,
}

impl Packing {
    /// Format by file name; `None` if it is not an archive.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Some(Self::TarGzip)
        } else {
            name.ends_with(".tar").then_some(Self::Tar)
        }
    }
}

/// Reason why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("{0}")]
    Unsafe(String),
    #[error("unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bounds and progress of unpacking, shared by all archives of an artifact.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Bound on the bytes of all files.
    pub(crate) bytes_max: u64,
    /// Bytes written so far.
    pub(crate) done: AtomicU64,
    /// Set when the fetch is dropped.
    pub(crate) given_up: AtomicBool,
    entries: AtomicU64,
}

impl Limits {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, done: AtomicU64::new(0), given_up: AtomicBool::new(false), entries: AtomicU64::new(0) }
    }
}

/// Unpacks into a private folder. Blocks.
pub(crate) fn unpack(archive: &Path, packing: Packing, into: &Path, limits: &Limits) -> Result<(), UnpackError> {
    let file = BufReader::with_capacity(1 << 20, File::open(archive)?);
    match packing {
        Packing::Tar => entries(file, into, limits),
        Packing::TarGzip => entries(MultiGzDecoder::new(file), into, limits),
    }
}

fn entries(reader: impl Read, into: &Path, limits: &Limits) -> Result<(), UnpackError> {
    let into = into.canonicalize()?;
    let (reader, allowance) = Bounded::new(reader);
    let mut archive = Archive::new(reader);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    allowance.set(HEADER_BYTES_MAX);
    for entry in archive.entries()? {
        let mut entry = entry.map_err(damaged)?;
        if limits.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        if limits.entries.fetch_add(1, Ordering::Relaxed) >= ENTRIES_MAX {
            return Err(UnpackError::Unsafe(format!("has more than {ENTRIES_MAX} entries")));
        }
        let size = entry.size();
        let done = limits.done.load(Ordering::Relaxed).saturating_add(size);
        if done > limits.bytes_max {
            return Err(UnpackError::TooLarge(limits.bytes_max));
        }
        allowance.set(size.saturating_add(HEADER_BYTES_MAX));
        write(&mut entry, &into)?;
        limits.done.store(done, Ordering::Relaxed);
        allowance.set(HEADER_BYTES_MAX);
    }
    links_stay_inside(&into, &into)
}

fn write<R: Read>(entry: &mut Entry<'_, R>, into: &Path) -> Result<(), UnpackError> {
    let name = entry.path().map_err(damaged)?.into_owned();
    let relative = relative(&name).map_err(UnpackError::Unsafe)?;
    let refuse = |what: &str| Err(UnpackError::Unsafe(format!("{}: {what}", name.display())));
    match entry.header().entry_type() {
        EntryType::XGlobalHeader => return Ok(()),
        EntryType::Directory => return make_dir(into, &relative),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
        EntryType::Symlink | EntryType::Link => {
            let target = entry.link_name().map_err(damaged)?.unwrap_or_default();
            if target.is_absolute() {
                return refuse("is a link to an absolute path, which is not unpacked");
            }
        }
        _ => return refuse("is neither a file, a folder nor a link; devices and the like are not unpacked"),
    }
    let file_name = relative.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if relative.as_os_str().is_empty() {
        return refuse("names no file");
    }
    if file_name.starts_with(".wh.") {
        return refuse("removes a file of another layer, which is not supported; publish it without that file");
    }
    if !entry.unpack_in(into).map_err(broken(&name))? {
        return refuse("would leave the folder");
    }
    Ok(())
}

/// The library would apply the archive's mode before the folder has content.
fn make_dir(into: &Path, relative: &Path) -> Result<(), UnpackError> {
    let mut path = into.to_owned();
    for part in relative {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(UnpackError::Unsafe(format!("{}: is no folder in the archive", relative.display()))),
            Err(_) => fs::create_dir(&path)?,
        }
    }
    Ok(())
}

/// A path reduced to plain names; `..`, a root or a drive is an error. Also used for titles of single files.
pub(crate) fn relative(path: &Path) -> Result<PathBuf, String> {
    let mut relative = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            _ => {
                return Err(format!(
                    "{}: leaves the folder; only relative paths without `..` are allowed",
                    path.display()
                ));
            }
        }
    }
    Ok(relative)
}

/// A chain of links can lead anywhere however harmless each link looks, so the file system resolves it.
fn links_stay_inside(dir: &Path, root: &Path) -> Result<(), UnpackError> {
    for entry in fs::read_dir(dir)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            links_stay_inside(&path, root)?;
        } else if kind.is_symlink() && !path.canonicalize().is_ok_and(|target| target.starts_with(root)) {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            remove(&path)?;
            return Err(UnpackError::Unsafe(format!("{name}: is a link to nothing in the archive")));
        }
    }
    Ok(())
}

/// An error of reading the archive, not of the disk.
fn damaged(error: io::Error) -> UnpackError {
    match error.kind() {
        io::ErrorKind::Interrupted => UnpackError::Io(error),
        _ => UnpackError::Unsafe(format!("the archive is damaged: {error}")),
    }
}

/// An error of writing an entry, which may also be one of reading the archive.
fn broken(name: &Path) -> impl Fn(io::Error) -> UnpackError {
    let name = name.display().to_string();
    move |error| {
        // The library wraps the system's error in its own message, and keeps its kind.
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other => UnpackError::Unsafe(format!("{name}: {}", innermost(&error))),
            _ => UnpackError::Io(error),
        }
    }
}

fn innermost(error: &io::Error) -> String {
    let mut said: &dyn std::error::Error = error;
    while let Some(source) = said.source() {
        said = source;
    }
    said.to_string()
}

#[cfg(test)]
mod tests;
