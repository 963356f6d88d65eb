//! The watch of the manifest folder: every change in or below it leads to a new reading.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use slm_crds::manifest;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{
    downloads::AGAIN,
    reconcile::Desired,
    report::Reporter,
    resolve::{ArtifactProblems, SharedResolver, lock},
};

/// Editors write a file in several steps: a change counts when it has been quiet for so long,
const QUIET: Duration = Duration::from_millis(50);
/// or when this much time has passed, for a folder that never is.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// A folder that cannot be watched.
#[derive(Debug, Error)]
#[error("cannot watch {}: {reason}; raise fs.inotify.max_user_watches if that limit is reached", path.display())]
pub struct WatchError {
    /// The folder of manifests.
    path: PathBuf,
    /// The system's error.
    reason: String,
}

/// Watches the manifests, and the artifacts that lie elsewhere.
#[derive(Debug)]
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    marks: mpsc::Receiver<()>,
    folder: PathBuf,
    /// A watched folder outside has neighbours, whose changes are none of ours.
    ours: Arc<Mutex<Vec<PathBuf>>>,
}

impl Watch {
    /// Watches the folder `path`, or that of the manifest `path`, from now on. A path that does not exist is for the
    /// first reading to refuse.
    ///
    /// # Errors
    /// The system does not watch the folder.
    pub(crate) fn start(path: &Path) -> Result<Self, WatchError> {
        let failed = |reason: String| WatchError { path: path.to_owned(), reason };
        let absolute = std::path::absolute(path).map_err(|error| failed(error.to_string()))?;
        let folder = if absolute.is_file() { absolute.parent().unwrap_or(&absolute) } else { &absolute }.to_owned();
        let ours = Arc::new(Mutex::new(vec![folder.clone()]));
        // One mark is enough for any number of changes.
        let (mark, marks) = mpsc::channel(1);
        let known = Arc::clone(&ours);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| changes(event.kind) && concerns(&event.paths, &known)) {
                // Full means that a mark is there already.
                let _ = mark.try_send(());
            }
        })
        .map_err(|error| failed(error.to_string()))?;
        if folder.exists() {
            watcher.watch(&folder, RecursiveMode::Recursive).map_err(|error| failed(error.to_string()))?;
        }
        Ok(Self { watcher, marks, folder, ours })
    }

    /// Watches what `desired` is made of as well, as far as it lies outside of the folder.
    pub(crate) fn include(&mut self, desired: &Desired) {
        let models = desired.models.iter().map(|model| &model.launch.path);
        let adapters = desired.adapters.iter().map(|adapter| &adapter.path);
        let unusable_models = desired.unusable_models.iter().filter_map(|model| model.path.as_ref());
        let unusable =
            unusable_models.chain(desired.unusable_adapters.iter().filter_map(|adapter| adapter.path.as_ref()));
        let outside: Vec<PathBuf> =
            models.chain(adapters).chain(unusable).filter(|path| !path.starts_with(&self.folder)).cloned().collect();
        // What is there may have been put in the place of what was watched, so the watch is set again each time; its
        // parent tells when that happens. One that is gone by now has told so already.
        for path in &outside {
            let _ = self.watcher.watch(path, RecursiveMode::NonRecursive);
            if let Some(parent) = path.parent() {
                let _ = self.watcher.watch(parent, RecursiveMode::NonRecursive);
            }
        }
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        ours.truncate(1);
        ours.extend(outside);
    }
}

fn concerns(paths: &[PathBuf], ours: &Mutex<Vec<PathBuf>>) -> bool {
    let ours = ours.lock().unwrap_or_else(PoisonError::into_inner);
    paths.iter().any(|path| ours.iter().any(|our| path.starts_with(our)))
}

/// Our own reading is not a change.
fn changes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Reads again after every change of what was read `first`, and after a while when an artifact could not be used: its
/// registry may be back. Manifests that are not valid are reported, and the last valid ones stay in force.
pub(crate) async fn follow(
    path: PathBuf,
    mut watch: Watch,
    resolver: SharedResolver,
    reporter: Arc<dyn Reporter>,
    first: Desired,
    desired: mpsc::Sender<Desired>,
) {
    let mut sent = first.revision;
    let mut unusable = !first.unusable_models.is_empty() || !first.unusable_adapters.is_empty();
    let news = lock(&resolver).news();
    // Told since the last change; and whether the manifests were invalid then.
    let (mut told, mut invalid) = (BTreeSet::new(), false);
    loop {
        let changed = tokio::select! {
            mark = watch.marks.recv() => match mark {
                Some(()) => true,
                None => return,
            },
            () = news.notified() => false,
            () = tokio::time::sleep(AGAIN), if unusable => false,
        };
        if changed {
            quiet(&mut watch.marks).await;
            told.clear();
        }
        let (path, resolver) = (path.clone(), Arc::clone(&resolver));
        let reading = tokio::task::spawn_blocking(move || read(&path, &resolver)).await;
        match reading {
            Ok(Ok((next, problems))) => {
                let problems = problems.all();
                unusable = !problems.is_empty();
                // Nothing is new about what was read again by itself: it was told, and is served as it can be.
                if !changed && next.revision == sent {
                    continue;
                }
                for problem in problems {
                    if told.insert(problem.clone()) {
                        reporter.problem(&format!("{problem}; keeping what runs now"));
                    }
                }
                if std::mem::take(&mut invalid) {
                    reporter.note("the manifests are valid again");
                }
                watch.include(&next);
                sent = next.revision;
                if desired.send(next).await.is_err() {
                    return;
                }
            }
            // They were told when they changed.
            Ok(Err(_)) if !changed => {}
            Ok(Err(problems)) => {
                for problem in problems.iter() {
                    reporter.problem(&problem.to_string());
                }
                reporter.note("invalid manifests: keeping the last valid ones");
                invalid = true;
            }
            Err(error) => reporter.problem(&format!("reading the manifests: {error}")),
        }
    }
}

/// A desired state, and what is wrong with artifacts.
pub(crate) type Reading = (Desired, ArtifactProblems);

/// Reads, checks and resolves.
///
/// # Errors
/// Everything that is wrong with the manifests.
pub(crate) fn read(path: &Path, resolver: &SharedResolver) -> Result<Reading, manifest::Problems> {
    let manifests = manifest::read(path)?;
    Ok(lock(resolver).resolve(&manifests))
}

async fn quiet(marks: &mut mpsc::Receiver<()>) {
    let settled = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, marks.recv()).await {} };
    // Busy all the time: the next reading follows soon enough.
    let _ = tokio::time::timeout(QUIET_MAX, settled).await;
}
