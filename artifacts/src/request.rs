//! What every kind of server needs to know of a fetch.

use std::{sync::Arc, time::Duration};

use reqwest::Client;

use crate::{
    RetryPolicy, Source,
    cache::Cache,
    http::{client::PlainHosts, rate::MinimumRate},
};

/// The cache, and what it is filled with.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) cache: Arc<Cache>,
    pub(crate) client: Client,
    pub(crate) plain: PlainHosts,
    pub(crate) retry: RetryPolicy,
    pub(crate) rate: MinimumRate,
    pub(crate) answer_max: Duration,
}

/// One fetch.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) tools: &'a Tools,
    /// The URI as it may be shown.
    pub(crate) uri: &'a str,
    /// 64 hexadecimal digits.
    pub(crate) digest: Option<String>,
    pub(crate) source: &'a Source,
}
