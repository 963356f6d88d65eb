//! HTTP for fetches: one client with TLS rules, retries with backoff, resumable downloads.

pub(crate) mod client;
pub(crate) mod download;
pub(crate) mod partial;
pub(crate) mod rate;
pub(crate) mod retry;
pub(crate) mod status;
