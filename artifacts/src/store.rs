//! The one entry: a cache, a client, and `fetch`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    Artifact, FetchError, Progress, RetryPolicy, Source,
    cache::Cache,
    digest::parse_digest,
    http::{
        client::{PlainHosts, client},
        rate::MinimumRate,
    },
    local, oci,
    request::{Request, Tools},
    source::Location,
    web,
};

/// How a store works.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Folder of the cache. Other processes and nodes may use it at the same time.
    pub dir: PathBuf,
    /// Bytes that the cache may hold. `None`: as many as the disk has.
    pub bytes_max: Option<u64>,
    /// Folder of the models that were converted from artifacts: they count towards the bound, and those that are not in use
    /// make room as artifacts do.
    pub converted: Option<PathBuf>,
    /// Folder at which each claim is mounted under its name.
    pub pvc_root: PathBuf,
    /// `HOST` or `HOST:PORT` that may be spoken to without TLS, besides this machine.
    pub insecure_hosts: Vec<String>,
    /// PEM certificates to trust, besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// How often a server is asked.
    pub retry: RetryPolicy,
    /// How long a server may say nothing before it counts as away.
    pub idle: Duration,
    /// Bytes a second that a download brings at least, on average over the time of `idle`; zero: any number.
    pub rate_min: u64,
    /// How long a server may take to begin an answer, tokens included, or for all of a manifest.
    pub answer_max: Duration,
}

/// Where claims are mounted when nothing else is said.
pub const PVC_ROOT: &str = "/var/lib/slm-swarm/pvc";

impl StoreConfig {
    /// A cache in that folder, without a bound, with everything else as it usually is.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bytes_max: None,
            converted: None,
            pvc_root: PathBuf::from(PVC_ROOT),
            insecure_hosts: Vec::new(),
            ca_file: None,
            retry: RetryPolicy::default(),
            idle: Duration::from_secs(30),
            rate_min: 1024,
            answer_max: Duration::from_secs(60),
        }
    }
}

/// A cache and what is needed to fill it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    tools: Tools,
    pvc_root: PathBuf,
}

impl Store {
    /// Opens a cache, makes it when there is none, and clears away what processes that are gone have left. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be used or the CA file holds no certificate.
    pub fn open(config: StoreConfig) -> Result<Self, FetchError> {
        let plain = PlainHosts::new(&config.insecure_hosts);
        let client = client(&plain, config.ca_file.as_deref(), config.idle)?;
        let cache = Cache::open_with(&config.dir, config.bytes_max.unwrap_or(u64::MAX), config.converted)
            .map_err(|error| FetchError::io("cache", &config.dir, error))?;
        let tools = Tools {
            cache: Arc::new(cache),
            client,
            plain,
            retry: config.retry,
            rate: MinimumRate { bytes_per_second: config.rate_min, window: config.idle },
            answer_max: config.answer_max,
        };
        Ok(Self { tools, pvc_root: config.pvc_root })
    }

    /// Evicts what is not in use, as far as there is more than the bound allows: after something was made that no fetch
    /// had made room for. Blocks.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn trim(&self) -> Result<(), FetchError> {
        let made = self.tools.cache.make_room(0, "");
        made.map(drop).map_err(|error| FetchError::io("cache", &self.tools.cache.dir, error))
    }

    /// Fetches, or finds in the cache.
    ///
    /// A source whose digest is known and in the cache needs no network. Without one, a tag or URL is resolved anew
    /// each time; when its server is away, what it stood for last is given, and says that it [is
    /// stale](Artifact::is_stale).
    ///
    /// Dropping the future stops it. What has arrived is kept, and continued by the next one that asks for it.
    ///
    /// # Errors
    /// A [`FetchError`], which names the source and what to do.
    pub async fn fetch(
        &self,
        source: &Source,
        watch: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Artifact, FetchError> {
        let uri = source.shown();
        let digest = source.digest.as_deref().map(|digest| parse_digest(&uri, digest)).transpose()?;
        let request = Request { tools: &self.tools, uri: &uri, digest, source };
        match Location::parse(&source.uri)? {
            Location::File(path) => {
                let uri = uri.clone();
                in_place(move || local::file(&uri, &path)).await
            }
            Location::Claim { claim, path } => {
                let (uri, root) = (uri.clone(), self.pvc_root.clone());
                in_place(move || local::claim(&uri, &root, &claim, &path)).await
            }
            Location::Web(url) => web::fetch(request, &url, watch).await,
            Location::Oci(reference) => oci::fetch(request, &reference, watch).await,
        }
    }
}

async fn in_place(find: impl FnOnce() -> Result<PathBuf, FetchError> + Send + 'static) -> Result<Artifact, FetchError> {
    let found = tokio::task::spawn_blocking(find).await;
    found.unwrap_or_else(|error| Err(FetchError::io("file", "", std::io::Error::other(error)))).map(Artifact::in_place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Watcher;

    #[test]
    fn fetches_can_be_spawned() {
        fn sendable(_: impl Send) {}
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path())).unwrap();
        let watch: Watcher<'_> = &mut |_| {};
        sendable(store.fetch(&Source::new("file:x"), watch));
    }
}
