//! Artifacts that are not files of this machine: downloaded before a worker is started for them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use slm_artifacts::{Artifact, Progress, Store, StoreConfig};
use slm_crds::source::Source;
use slm_launch::size;

use crate::report::Reporter;

/// Interval of progress notes.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Fetches, and keeps in the cache what is in use.
#[derive(Debug)]
pub(crate) struct Downloads {
    config: StoreConfig,
    store: Option<Store>,
    reporter: Arc<dyn Reporter>,
    /// Artifacts in use, by URI and digest. A tag stays what it was at the first reading of its manifest.
    held: HashMap<(String, Option<String>), Artifact>,
}

impl Downloads {
    /// Opens the store when it is first needed.
    pub(crate) fn new(config: StoreConfig, reporter: Arc<dyn Reporter>) -> Self {
        Self { config, store: None, reporter, held: HashMap::new() }
    }

    /// The path of what `source` names. Blocks; not for a thread that others wait on.
    pub(crate) fn get(&mut self, source: &Source) -> Result<PathBuf, String> {
        let key = (source.uri.clone(), source.digest.clone());
        if let Some(artifact) = self.held.get(&key) {
            return Ok(artifact.path().to_owned());
        }
        if let Some(secret) = &source.secret_ref {
            return Err(format!(
                "Secret {} is one of a cluster; fetch it once with `slm fetch` and its credentials, then take secretRef away",
                secret.name
            ));
        }
        let store = match &self.store {
            Some(store) => store.clone(),
            None => Store::open(self.config.clone()).map_err(|error| error.to_string())?,
        };
        self.store = Some(store.clone());
        let wanted =
            slm_artifacts::Source { uri: source.uri.clone(), digest: source.digest.clone(), credentials: None };
        let told = Mutex::new(None);
        let mut watch = |progress| self.tell(&source.uri, progress, &told);
        let fetching = store.fetch(&wanted, &mut watch);
        let artifact = tokio::runtime::Handle::current()
            .block_on(fetching)
            .map_err(|error| format!("{}: {error}", error.reason()))?;
        let path = artifact.path().to_owned();
        self.held.insert(key, artifact);
        Ok(path)
    }

    fn tell(&self, uri: &str, progress: Progress, told: &Mutex<Option<Instant>>) {
        let Ok(mut told) = told.lock() else { return };
        if told.is_some_and(|told| told.elapsed() < TOLD_EVERY) || progress.done == 0 {
            return;
        }
        *told = Some(Instant::now());
        let of = progress.total.map(|total| format!(" of {}", size(total))).unwrap_or_default();
        self.reporter.note(&format!("fetching {uri}: {}{of}", size(progress.done)));
    }
}
