//! A fetch, and the tools that every kind of source needs for it.

use std::{sync::Arc, time::Duration};

use reqwest::Client;

use crate::{
    RetryPolicy, Source,
    cache::Cache,
    http::{client::PlainHosts, rate::MinimumRate},
};

/// Cache, client and limits.
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
    /// The URI without secrets.
    pub(crate) uri: &'a str,
    /// 64 hexadecimal digits.
    pub(crate) digest: Option<String>,
    pub(crate) source: &'a Source,
}
