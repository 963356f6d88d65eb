//! A fetch, and the tools that every kind of source needs for it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::Client;

use crate::{
    Credentials, FetchError, RetryPolicy, Source,
    cache::{
        Cache, blocking,
        evict::{Room, bytes_in},
        job::Job,
    },
    http::{client::PlainHosts, rate::MinimumRate},
};

/// Cache, client and limits.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) cache: Arc<Cache>,
    pub(crate) client: Client,
    pub(crate) plain: PlainHosts,
    /// The Hub that `hf:` names.
    pub(crate) hub: HubServer,
    pub(crate) buckets: BucketServers,
    pub(crate) retry: RetryPolicy,
    pub(crate) rate: MinimumRate,
    pub(crate) answer_max: Duration,
}

/// Server of a Hub.
#[derive(Clone, Debug)]
pub(crate) struct HubServer {
    /// `https://HOST`.
    pub(crate) endpoint: String,
    /// Of sources without their own.
    pub(crate) credentials: Option<Credentials>,
}

/// Servers of buckets.
#[derive(Clone, Debug)]
pub(crate) struct BucketServers {
    /// Of `s3:`, unless it is Amazon's.
    pub(crate) s3_endpoint: Option<String>,
    /// PEM certificates to trust besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// One fetch.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) tools: &'a Tools,
    /// The URI without secrets.
    pub(crate) uri: &'a str,
    /// 64 hexadecimal digits.
    pub(crate) digest: Option<String>,
    pub(crate) source: &'a Source,
}

impl Request<'_> {
    /// Makes room for all parts of an artifact before the first request.
    pub(crate) async fn reserve(&self, job: &Job, key: &str, total: u64) -> Result<(), FetchError> {
        let (cache, uri) = (&self.tools.cache, self.uri);
        let limit = cache.bytes_max;
        if total > limit {
            return Err(FetchError::TooLarge { uri: uri.to_owned(), bytes: total, limit });
        }
        let (dir, key) = (job.dir(), key.to_owned());
        let room = blocking(cache, uri, move |cache| {
            let missing = total.saturating_sub(bytes_in(&dir));
            Ok((cache.make_room(missing, &key)?, missing))
        });
        match room.await? {
            (Room::Made, _) => Ok(()),
            (Room::InUse, bytes) => {
                Err(FetchError::CacheFull { uri: uri.to_owned(), dir: cache.dir.clone(), bytes, limit })
            }
        }
    }
}
