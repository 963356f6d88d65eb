//! `hf://`: models and adapters in a repository of a Hub: that of Hugging Face, or a mirror.
//!
//! `api` speaks to the Hub. A revision is resolved to its commit, and what a commit has never changes.

mod api;

use reqwest::{Response, header::HeaderMap};

use crate::{
    Artifact, FetchError,
    files::{FileSource, Files, RemoteFile},
    http::retry::{Fault, RetryPolicy},
    hub_reference::HubReference,
    progress::Watcher,
    request::Request,
};
use api::Hub;

/// Fetches files of a repository.
pub(crate) async fn fetch(
    request: Request<'_>,
    reference: &HubReference,
    watch: Watcher<'_>,
) -> Result<Artifact, FetchError> {
    let hub = Hub::new(&request, reference)?;
    let repository = Repository { hub: &hub, reference };
    let fixed = reference.is_commit().then_some(reference.revision.as_str());
    Files { request: &request, source: &repository }.fetch(fixed, watch).await
}

struct Repository<'a> {
    hub: &'a Hub<'a>,
    reference: &'a HubReference,
}

impl FileSource for Repository<'_> {
    fn subject(&self) -> &str {
        &self.reference.repository
    }

    fn path(&self) -> &str {
        &self.reference.path
    }

    fn name(&self, version: Option<&str>) -> String {
        let version = version.unwrap_or(&self.reference.revision);
        format!("{}{}", self.hub.server(), self.reference.at(version))
    }

    async fn version(&self, retry: RetryPolicy) -> Result<String, FetchError> {
        self.hub.commit(&self.reference.revision, retry).await
    }

    async fn files(&self, version: &str) -> Result<Vec<RemoteFile>, FetchError> {
        self.hub.tree(version).await
    }

    fn url(&self, version: &str, file: &RemoteFile) -> Result<String, FetchError> {
        self.hub.file_url(version, &file.path).map(String::from)
    }

    async fn get(&self, version: &str, file: &RemoteFile, headers: HeaderMap) -> Result<Response, Fault> {
        self.hub.get_file(version, &file.path, headers).await
    }
}
