//! The folder of manifests, followed: every change of a file in or below it ends in a new reading.

use std::{path::{Path, PathBuf}, sync::Arc, time::Duration};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use slm_crds::manifest;
use tokio::sync::mpsc;

use super::{report::Reporter, resolve::SharedResolver};
use crate::{exit::Failure, reconcile::Desired};

/// Editors write a file in several steps: a change counts when it has been quiet for so long,
const QUIET: Duration = Duration::from_millis(50);
/// or when this much time has passed, for a folder that never is.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// Watches the folder `path`, or that of the manifest `path`, from now on. The watcher has to be kept. A path that does
/// not exist is for the first reading to refuse.
///
/// # Errors
/// When the system does not watch folders for us.
pub fn watch_existing(path: &Path) -> Result<(notify::RecommendedWatcher, mpsc::Receiver<()>), Failure> {
    // One mark is enough for any number of changes.
    let (mark, marks) = mpsc::channel(1);
    let failed = |error: notify::Error| Failure::failed(format!("following {}: {error}", path.display()));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| changes(event.kind)) {
            // Full means that a mark is there already.
            let _ = mark.try_send(());
        }
    })
    .map_err(failed)?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !folder.exists() {
        return Ok((watcher, marks));
    }
    watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
    Ok((watcher, marks))
}

/// Our own reading is not a change.
fn changes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Reads again after every change. Manifests that are not valid are reported, and what runs keeps running.
pub async fn follow(
    path: PathBuf,
    mut marks: mpsc::Receiver<()>,
    resolver: SharedResolver,
    reporter: Arc<Reporter>,
    desired: mpsc::Sender<Desired>,
) {
    while marks.recv().await.is_some() {
        quiet(&mut marks).await;
        let (path, resolver) = (path.clone(), Arc::clone(&resolver));
        let reading = tokio::task::spawn_blocking(move || read(&path, &resolver)).await;
        match reading {
            Ok(Ok((next, problems))) => {
                for problem in problems {
                    reporter.problem(&format!("{problem}; what runs keeps running"));
                }
                if desired.send(next).await.is_err() {
                    return;
                }
            }
            Ok(Err(problems)) => {
                for problem in problems.iter() {
                    reporter.problem(&problem.to_string());
                }
                reporter.note("the manifests are not valid: what runs keeps running");
            }
            Err(error) => reporter.problem(&format!("reading the manifests: {error}")),
        }
    }
}

/// Reads, checks and resolves.
///
/// # Errors
/// Everything that is wrong with the manifests.
pub fn read(
    path: &Path,
    resolver: &SharedResolver,
) -> Result<(Desired, Vec<String>), manifest::Problems> {
    let manifests = manifest::read(path)?;
    let mut resolver = resolver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(resolver.resolve(&manifests))
}

async fn quiet(marks: &mut mpsc::Receiver<()>) {
    let settled = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, marks.recv()).await {} };
    // Busy all the time: the next reading follows soon enough.
    let _ = tokio::time::timeout(QUIET_MAX, settled).await;
}
