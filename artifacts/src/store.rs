//! The artifact store: a cache, a client, and [`Store::fetch`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    Artifact, Credentials, FetchError, Progress, RetryPolicy, Source, bucket,
    cache::Cache,
    digest::parse_digest,
    http::{
        client::{PlainHosts, client},
        rate::MinimumRate,
    },
    hub, local, oci,
    request::{BucketServers, HubServer, Request, Tools},
    source::Location,
    web,
};

/// Configuration of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Folder of the cache. Other processes and nodes may use it at the same time.
    pub dir: PathBuf,
    /// Size limit of the cache. `None`: no limit but the disk.
    pub bytes_max: Option<u64>,
    /// Folder of converted models. They count towards the limit and are evicted like artifacts.
    pub converted: Option<PathBuf>,
    /// Folder in which each claim is mounted under its name.
    pub pvc_root: PathBuf,
    /// Hosts, as `HOST` or `HOST:PORT`, that may be reached without TLS, besides loopback.
    pub insecure_hosts: Vec<String>,
    /// File with PEM certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Server of `hf:` sources, `https://HOST`.
    pub hub_endpoint: String,
    /// Credentials for that server, of sources without their own.
    pub hub_credentials: Option<Credentials>,
    /// Server of `s3:` sources, `https://HOST`. `None`: that of `AWS_ENDPOINT_URL`, or Amazon's.
    pub s3_endpoint: Option<String>,
    /// Retries and backoff.
    pub retry: RetryPolicy,
    /// Read timeout: time without a byte after which a server counts as unreachable.
    pub idle: Duration,
    /// Minimum bytes a second of a download, averaged over `idle`; zero: no minimum.
    pub rate_min: u64,
    /// Timeout for the beginning of an answer, tokens included, and for a whole manifest.
    pub answer_max: Duration,
}

/// Default server of `hf:` sources.
pub const HUB_ENDPOINT: &str = "https://huggingface.co";

/// Default folder of mounted claims.
pub const PVC_ROOT: &str = "/var/lib/slm-swarm/pvc";

impl StoreConfig {
    /// Defaults: no size limit, TLS for every host but loopback.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bytes_max: None,
            converted: None,
            pvc_root: PathBuf::from(PVC_ROOT),
            insecure_hosts: Vec::new(),
            ca_file: None,
            hub_endpoint: HUB_ENDPOINT.to_owned(),
            hub_credentials: None,
            s3_endpoint: None,
            retry: RetryPolicy::default(),
            idle: Duration::from_secs(30),
            rate_min: 1024,
            answer_max: Duration::from_secs(60),
        }
    }
}

/// An artifact store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    tools: Tools,
    pvc_root: PathBuf,
}

impl Store {
    /// Opens a cache, creating it if necessary, and removes leftovers of processes that are gone. Blocks.
    ///
    /// # Errors
    /// The folder cannot be used, or the CA file has no certificate.
    pub fn open(config: StoreConfig) -> Result<Self, FetchError> {
        let plain = PlainHosts::new(&config.insecure_hosts);
        let client = client(&plain, config.ca_file.as_deref(), config.idle)?;
        let cache = Cache::open_with(&config.dir, config.bytes_max.unwrap_or(u64::MAX), config.converted)
            .map_err(|error| FetchError::io("cache", &config.dir, error))?;
        let tools = Tools {
            cache: Arc::new(cache),
            client,
            plain,
            hub: HubServer { endpoint: config.hub_endpoint, credentials: config.hub_credentials },
            buckets: BucketServers { s3_endpoint: config.s3_endpoint, ca_file: config.ca_file },
            retry: config.retry,
            rate: MinimumRate { bytes_per_second: config.rate_min, window: config.idle },
            answer_max: config.answer_max,
        };
        Ok(Self { tools, pvc_root: config.pvc_root })
    }

    /// Evicts down to the size limit, for data that was written without a fetch. Blocks.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn trim(&self) -> Result<(), FetchError> {
        let made = self.tools.cache.make_room(0, "");
        made.map(drop).map_err(|error| FetchError::io("cache", &self.tools.cache.dir, error))
    }

    /// Fetches an artifact, or finds it in the cache.
    ///
    /// A cached digest needs no network. Without a digest, a tag or URL is resolved each time; if its server is
    /// unreachable, the last known version is returned and is [stale](Artifact::is_stale).
    ///
    /// Dropping the future stops the fetch. The partial download is kept, and continued by the next fetch.
    ///
    /// # Errors
    /// A [`FetchError`] with the source and the remedy.
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
            Location::Hub(reference) => hub::fetch(request, &reference, watch).await,
            Location::Bucket(reference) => bucket::fetch(request, &reference, watch).await,
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
