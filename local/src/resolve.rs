//! Resolution of manifests to a desired state: every artifact is found and has its digest.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use slm_convert::{Checkpoint, peft};
use slm_crds::{
    LoraAdapter, SlmModel,
    manifest::{Located, Manifests},
    source::Source,
};
use slm_launch::ExecutionProvider;
use slm_router::swarm::Route;
use tokio::sync::Notify;

use crate::reconcile::{
    Desired, DesiredAdapter, DesiredExternal, DesiredModel, Launch, UnusableAdapter, UnusableModel,
};
use crate::{
    downloads::{Downloads, NotFetched},
    fingerprint::{Fingerprint, fingerprint},
};

/// Artifacts that cannot be used, one line each with file, line, object and reason.
#[derive(Debug, Default)]
pub(crate) struct ArtifactProblems {
    pub(crate) of_models: Vec<String>,
    pub(crate) of_adapters: Vec<String>,
    /// Models whose artifacts are being fetched.
    pub(crate) fetching_models: Vec<String>,
}

impl ArtifactProblems {
    pub(crate) fn all(self) -> Vec<String> {
        [self.of_models, self.of_adapters].concat()
    }
}

/// Makes desired states of manifests, one after the other. Remembers digests of files that have not changed since, and
/// what was wanted last of an object whose files cannot be read now.
#[derive(Debug)]
pub(crate) struct Resolver {
    digests: HashMap<PathBuf, (Fingerprint, String)>,
    last: Desired,
    /// Threads of a worker whose manifest does not say.
    threads: Option<u32>,
    accelerator: Option<ExecutionProvider>,
    /// Downloads of artifacts.
    downloads: Downloads,
}

impl Resolver {
    /// `threads` are those of a worker whose manifest does not say; `accelerator` is that of all workers, whatever manifests say.
    pub(crate) fn new(threads: Option<u32>, accelerator: Option<ExecutionProvider>, downloads: Downloads) -> Self {
        Self { digests: HashMap::new(), last: Desired::default(), threads, accelerator, downloads }
    }

    /// Notified when a reading would find more than the last one: an artifact was fetched, or failed to be.
    pub(crate) fn news(&self) -> Arc<Notify> {
        self.downloads.news()
    }

    /// The desired state, and what is wrong with artifacts. An object with a problem is as it was before, and so is one whose
    /// artifact is being fetched; a new one is named as one that cannot be used.
    pub(crate) fn resolve(&mut self, manifests: &Manifests) -> (Desired, ArtifactProblems) {
        let mut problems = ArtifactProblems::default();
        let mut desired = Desired { revision: self.last.revision, ..Desired::default() };
        self.downloads.begin();
        for model in &manifests.models {
            match self.model(model) {
                Ok(wanted) => desired.models.push(wanted),
                Err(not_there) => {
                    let name = name_of(model.object.metadata.name.as_ref());
                    let reason = match not_there {
                        NotFetched::Fetching => {
                            problems.fetching_models.push(name.clone());
                            desired.fetching = true;
                            String::new()
                        }
                        NotFetched::Failed(reason) => {
                            problems.of_models.push(problem(model, "SlmModel", &name, &reason));
                            reason
                        }
                    };
                    desired.models.extend(self.last.models.iter().find(|last| last.name == name).cloned());
                    desired.unusable_models.push(unusable_model(model, name, reason));
                }
            }
        }
        for adapter in &manifests.adapters {
            match self.adapter(adapter) {
                Ok(wanted) => desired.adapters.push(wanted),
                Err(not_there) => {
                    let name = name_of(adapter.object.metadata.name.as_ref());
                    let reason = match not_there {
                        NotFetched::Fetching => {
                            desired.fetching = true;
                            String::new()
                        }
                        NotFetched::Failed(reason) => {
                            problems.of_adapters.push(problem(adapter, "LoraAdapter", &name, &reason));
                            reason
                        }
                    };
                    desired.adapters.extend(self.last.adapters.iter().find(|last| last.name == name).cloned());
                    desired.unusable_adapters.push(unusable_adapter(adapter, name, reason));
                }
            }
        }
        self.downloads.end();
        let externals = manifests.externals.iter().map(|external| DesiredExternal {
            name: name_of(external.object.metadata.name.as_ref()),
            spec: external.object.spec.clone(),
        });
        desired.externals = externals.collect();
        let routes = manifests.routes.iter();
        desired.routes = routes
            .map(|route| Route { name: name_of(route.object.metadata.name.as_ref()), spec: route.object.spec.clone() })
            .collect();
        // Only what differs is a new revision.
        if desired != self.last {
            desired.revision += 1;
            self.last = desired.clone();
        }
        (desired, problems)
    }

    fn model(&mut self, model: &Located<SlmModel>) -> Result<DesiredModel, NotFetched> {
        let spec = &model.object.spec;
        let checkpoint = |path: &PathBuf| {
            Checkpoint::open(path).map(|open| open.digest().to_owned()).map_err(|error| error.to_string())
        };
        let accelerator = self.accelerator.map_or_else(|| ExecutionProvider::of_profile(&spec.runtime.accelerator), Ok);
        let execution_provider = accelerator.map_err(NotFetched::Failed)?;
        let (path, digest) = self.artifact(&spec.source, model.folder(), checkpoint)?;
        Ok(DesiredModel {
            name: name_of(model.object.metadata.name.as_ref()),
            expert: spec.expert.clone().unwrap_or_default(),
            launch: Launch {
                path,
                digest,
                execution_provider,
                task: spec.task,
                precision: spec.runtime.precision,
                context_length: spec.runtime.context_length,
                sequences_max: spec.runtime.max_sequences,
                kv_cache_bytes: spec.runtime.kv_cache.bytes,
                prefix_cache: spec.runtime.prefix_cache,
                speculative: spec.runtime.speculative.method,
                threads: spec.runtime.threads.or(self.threads),
                adapter_slots: spec.adapters.slots,
                adapter_host_bytes: spec.adapters.host_cache_bytes,
                adapter_rank_max: spec.adapters.max_rank,
            },
        })
    }

    fn adapter(&mut self, adapter: &Located<LoraAdapter>) -> Result<DesiredAdapter, NotFetched> {
        let spec = &adapter.object.spec;
        let digest = |path: &PathBuf| peft::digest(path).map_err(|error| error.to_string());
        let (path, digest) = self.artifact(&spec.source, adapter.folder(), digest)?;
        Ok(DesiredAdapter {
            name: name_of(adapter.object.metadata.name.as_ref()),
            model: spec.model_ref.name.clone(),
            expert: spec.expert.clone().unwrap_or_default(),
            path,
            digest,
            scale: spec.factor(),
            pinned: spec.placement.pin,
        })
    }

    fn artifact(
        &mut self,
        source: &Source,
        folder: &Path,
        digest: impl Fn(&PathBuf) -> Result<String, String>,
    ) -> Result<(PathBuf, String), NotFetched> {
        let failed = NotFetched::Failed;
        let Some(path) = source.path(folder) else {
            // Its digest was compared on the way here; what is served has the digest of its contents.
            let path = self.downloads.get(source)?;
            let found = self.known(&path, digest).map_err(failed)?;
            return Ok((path, found));
        };
        // A worker has its own working directory as far as we know.
        let path = std::path::absolute(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let found = self.known(&path, digest).map_err(failed)?;
        match &source.digest {
            Some(expected) if *expected != found => {
                let what =
                    format!("digest is {found}, but the manifest says {expected}; fix source.digest or the files");
                Err(failed(format!("{}: {what}", path.display())))
            }
            _ => Ok((path, found)),
        }
    }
}

impl Resolver {
    /// The digest of files, computed when they have changed.
    fn known(&mut self, path: &PathBuf, digest: impl Fn(&PathBuf) -> Result<String, String>) -> Result<String, String> {
        let now = fingerprint(path).map_err(|error| unreadable(path, &error))?;
        if let Some((_, digest)) = self.digests.get(path).filter(|(then, _)| *then == now) {
            return Ok(digest.clone());
        }
        let digest = digest(path)?;
        self.digests.insert(path.clone(), (now, digest.clone()));
        Ok(digest)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        let remedy = "put it there, or say in spec.source.uri where it is (`make setup` fetches the examples' model)";
        return format!("{} is not there: {remedy}", path.display());
    }
    format!("{}: {error}", path.display())
}

/// Every object that was read has a name.
fn name_of(name: Option<&String>) -> String {
    name.cloned().unwrap_or_default()
}

fn unusable_model(model: &Located<SlmModel>, name: String, problem: String) -> UnusableModel {
    let spec = &model.object.spec;
    let path = local_path(&spec.source, model.folder());
    UnusableModel { name, expert: spec.expert.clone().unwrap_or_default(), path, problem }
}

fn unusable_adapter(adapter: &Located<LoraAdapter>, name: String, problem: String) -> UnusableAdapter {
    let spec = &adapter.object.spec;
    UnusableAdapter {
        name,
        model: spec.model_ref.name.clone(),
        expert: spec.expert.clone().unwrap_or_default(),
        path: local_path(&spec.source, adapter.folder()),
        problem,
    }
}

fn local_path(source: &Source, folder: &Path) -> Option<PathBuf> {
    source.path(folder).and_then(|path| std::path::absolute(path).ok())
}

fn problem<T>(located: &Located<T>, kind: &str, name: &str, reason: &str) -> String {
    format!("{}:{}: {kind} {name}: {reason}", located.file.display(), located.line_of("spec.source"))
}

/// Shared by the command that reads manifests once and the task that follows them.
pub(crate) type SharedResolver = Arc<Mutex<Resolver>>;

pub(crate) fn lock(resolver: &SharedResolver) -> MutexGuard<'_, Resolver> {
    resolver.lock().unwrap_or_else(PoisonError::into_inner)
}
