//! HTTP as fetches need it: one client with its rules, attempts with pauses, downloads that continue.

pub(crate) mod client;
pub(crate) mod download;
pub(crate) mod partial;
pub(crate) mod rate;
pub(crate) mod retry;
pub(crate) mod status;
