//! Artifacts that are not files of this machine: downloaded in the background, so that a source that is slow or silent
//! holds up nothing but what needs it.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use slm_artifacts::{Artifact, Progress, Store, StoreConfig};
use slm_crds::source::Source;
use slm_launch::size;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::report::Reporter;

/// Interval of progress notes.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Downloads at once; more wait.
const AT_ONCE: usize = 4;
/// Time after which what could not be used is looked at again without a change, as workers are asked again after a refusal.
pub(crate) const AGAIN: Duration = Duration::from_secs(120);

/// Fetches, and keeps in the cache what is in use.
#[derive(Debug)]
pub(crate) struct Downloads {
    config: StoreConfig,
    store: Option<Store>,
    reporter: Arc<dyn Reporter>,
    /// Artifacts in use. A tag stays what it was at the first reading of its manifest.
    held: HashMap<Key, Artifact>,
    fetches: HashMap<Key, Fetch>,
    /// What was asked for since [`Downloads::begin`].
    asked: HashSet<Key>,
    slots: Arc<Semaphore>,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    /// Notified at the end of each download.
    news: Arc<Notify>,
}

/// URI and digest.
type Key = (String, Option<String>);
type Ended = (Key, Result<Artifact, String>);

/// A download that has not succeeded yet.
#[derive(Debug)]
struct Fetch {
    running: Option<AbortOnDropHandle<()>>,
    /// Time and reason of the last failure.
    failed: Option<(Instant, String)>,
}

/// The reason why there is no file yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotFetched {
    /// It is being fetched for the first time.
    Fetching,
    /// It cannot be fetched now, or at all.
    Failed(String),
}

impl Downloads {
    /// Opens the store when it is first needed.
    pub(crate) fn new(config: StoreConfig, reporter: Arc<dyn Reporter>) -> Self {
        Self {
            config,
            store: None,
            reporter,
            held: HashMap::new(),
            fetches: HashMap::new(),
            asked: HashSet::new(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            ended: mpsc::unbounded_channel(),
            news: Arc::default(),
        }
    }

    /// Notified when a download has ended: the next reading finds its file, or the reason of its failure.
    pub(crate) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Begins a reading of the manifests.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        while let Ok((key, outcome)) = self.ended.1.try_recv() {
            match outcome {
                Ok(artifact) => {
                    self.fetches.remove(&key);
                    self.held.insert(key, artifact);
                }
                Err(reason) => {
                    self.fetches.insert(key, Fetch { running: None, failed: Some((Instant::now(), reason)) });
                }
            }
        }
    }

    /// Ends a reading: downloads that nothing asked for are abandoned.
    pub(crate) fn end(&mut self) {
        self.fetches.retain(|key, _| self.asked.contains(key));
    }

    /// The path of what `source` names, once it was fetched. Needs a tokio runtime.
    pub(crate) fn get(&mut self, source: &Source) -> Result<PathBuf, NotFetched> {
        let key = (source.uri.clone(), source.digest.clone());
        self.asked.insert(key.clone());
        if let Some(artifact) = self.held.get(&key) {
            return Ok(artifact.path().to_owned());
        }
        if let Some(secret) = &source.secret_ref {
            return Err(NotFetched::Failed(format!(
                "Secret {} is one of a cluster; fetch it once with `slm fetch` and its credentials, then take secretRef away",
                secret.name
            )));
        }
        let due = |fetch: &Fetch| {
            fetch.running.is_none() && fetch.failed.as_ref().is_none_or(|(failed, _)| failed.elapsed() >= AGAIN)
        };
        if self.fetches.get(&key).is_none_or(due) {
            let running = Some(self.start(key.clone())?);
            let failed = self.fetches.remove(&key).and_then(|fetch| fetch.failed);
            self.fetches.insert(key.clone(), Fetch { running, failed });
        }
        match self.fetches.get(&key).and_then(|fetch| fetch.failed.as_ref()) {
            Some((_, reason)) => Err(NotFetched::Failed(reason.clone())),
            None => Err(NotFetched::Fetching),
        }
    }

    fn start(&mut self, key: Key) -> Result<AbortOnDropHandle<()>, NotFetched> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => Store::open(self.config.clone()).map_err(|error| NotFetched::Failed(error.to_string()))?,
        };
        self.store = Some(store.clone());
        let wanted = slm_artifacts::Source { uri: key.0.clone(), digest: key.1.clone(), credentials: None };
        let (reporter, slots, ended) = (Arc::clone(&self.reporter), Arc::clone(&self.slots), self.ended.0.clone());
        let news = Arc::clone(&self.news);
        let fetching = async move {
            // The semaphore is never closed.
            let _slot = slots.acquire().await;
            let told = Mutex::new(Instant::now());
            let mut watch = |progress| tell(reporter.as_ref(), &wanted.uri, progress, &told);
            let outcome = store.fetch(&wanted, &mut watch).await;
            let outcome = outcome.map_err(|error| format!("{}: {error}", error.reason()));
            // Nobody is there any more: then nobody needs it.
            let _ = ended.send((key, outcome));
            news.notify_one();
        };
        Ok(AbortOnDropHandle::new(tokio::spawn(fetching)))
    }
}

fn tell(reporter: &dyn Reporter, uri: &str, progress: Progress, told: &Mutex<Instant>) {
    let Ok(mut told) = told.lock() else { return };
    if told.elapsed() < TOLD_EVERY || progress.done == 0 {
        return;
    }
    *told = Instant::now();
    let of = progress.total.map(|total| format!(" of {}", size(total))).unwrap_or_default();
    reporter.note(&format!("fetching {uri}: {}{of}", size(progress.done)));
}
