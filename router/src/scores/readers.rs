//! Readers of texts for the router's own use: workers of a model that embeds make vectors, those of a model or a head that classifies
//! make probabilities.
//!
//! Nothing waits for a worker here: a request that cannot be scored now is routed without that.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use slm_crds::route::Target;
use slm_proto::v1::{
    ClassifyRequest, ClassifyResponse, EmbedInput, EmbedRequest, EmbedResponse, Expert as Told, embed_input::Input,
    embeddings_client::EmbeddingsClient,
};
use thiserror::Error;
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Response, Status, transport::Channel};

use super::similarity::unit;
use crate::{
    absence::Absence,
    decide::Decided,
    draws::Draws,
    eligible::ExcludedWorkers,
    encode::ANSWER_BYTES_MAX,
    events::{OpenStream, attributed},
    fleet::{Channels, channel},
    rank::Chosen,
    view::{View, Worker},
};

/// Workers that are asked for one batch.
const ATTEMPTS_MAX: usize = 3;
/// Longest time of an answer to a batch. A request waits less; vectors of examples are made in the background, where nobody else
/// would give up.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The readers of a swarm.
#[derive(Clone)]
pub(crate) struct Readers {
    view: watch::Receiver<Arc<View>>,
    channels: Channels,
    draws: Arc<Draws>,
}

/// A reader in one version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    /// `encoder` or `classifier`.
    pub(crate) role: &'static str,
    pub(crate) target: &'a Target,
    pub(crate) digest: &'a str,
}

/// What a classifier says of a text.
#[derive(Debug)]
pub(crate) struct Classification {
    /// A name for each probability.
    pub(crate) labels: Vec<String>,
    /// The expert of each label; empty unless a head classifies.
    pub(crate) experts: Vec<String>,
    pub(crate) probabilities: Vec<f32>,
    pub(crate) typicality: Option<f32>,
}

/// The reason why a text was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReadError {
    /// The swarm has no such model or adapter.
    #[error("the {} `{}` is not part of the swarm", .0.kind, .0.name)]
    NotPart(Target),
    /// No worker has it.
    #[error("the {role} `{name}` is not loaded on any worker: {why}")]
    NotLoaded { role: &'static str, name: String, why: Absence },
    /// A worker refused, or did not answer.
    #[error("the {role} `{name}` did not answer: {why}")]
    Failed { role: &'static str, name: String, why: String },
    /// Another version answered.
    #[error("the {role} `{name}` is being replaced")]
    Replaced { role: &'static str, name: String },
    /// A worker's answer is not one for each text.
    #[error("the {role} `{name}` gave no usable answer")]
    Unusable { role: &'static str, name: String },
}

impl ReadError {
    /// Whether another version than the one that was asked may be there.
    pub(crate) fn is_of_version(&self) -> bool {
        matches!(self, Self::Replaced { .. } | Self::NotLoaded { .. })
    }
}

impl<'a> Reader<'a> {
    /// That version of an encoder.
    pub(crate) fn encoder(target: &'a Target, digest: &'a str) -> Self {
        Self { role: "encoder", target, digest }
    }

    /// That version of a classifier.
    pub(crate) fn classifier(target: &'a Target, digest: &'a str) -> Self {
        Self { role: "classifier", target, digest }
    }

    fn name(&self) -> String {
        self.target.name.clone()
    }

    /// Whether an answer is by this version.
    fn check(&self, expert: Option<&Told>) -> Result<(), ReadError> {
        match expert {
            Some(expert) if expert.digest == self.digest => Ok(()),
            _ => Err(ReadError::Replaced { role: self.role, name: self.name() }),
        }
    }

    fn unusable(&self) -> ReadError {
        ReadError::Unusable { role: self.role, name: self.name() }
    }
}

type Client = EmbeddingsClient<Channel>;

impl Readers {
    pub(crate) fn new(view: watch::Receiver<Arc<View>>, channels: Channels) -> Self {
        Self { view, channels, draws: Arc::default() }
    }

    /// The version of a reader that would answer now.
    pub(crate) fn digest(&self, role: &'static str, target: &Target) -> Result<String, ReadError> {
        let view = Arc::clone(&self.view.borrow());
        let any = Wanted { role, target, digest: None };
        place(&view, &any, &ExcludedWorkers::default(), self.draws.draw()).map(|(_, digest)| digest)
    }

    /// Vectors of `texts`, of unit length, for `tenant`.
    pub(crate) async fn encode(
        &self,
        encoder: &Reader<'_>,
        texts: &[String],
        tenant: &str,
    ) -> Result<Vec<Vec<f32>>, ReadError> {
        let request = EmbedRequest {
            model: encoder.name(),
            inputs: texts.iter().map(|text| input(text)).collect(),
            truncate: true,
            tenant: tenant.to_owned(),
            ..EmbedRequest::default()
        };
        let ask = |mut client: Client| -> BoxFuture<'static, _> {
            let request = request.clone();
            Box::pin(async move { client.embed(request).await })
        };
        let EmbedResponse { embeddings, expert, .. } = self.answer(encoder, &ask).await?;
        encoder.check(expert.as_ref())?;
        let vectors: Option<Vec<_>> = embeddings.into_iter().map(|embedding| unit(embedding.values)).collect();
        let alike = |vectors: &Vec<Vec<f32>>| {
            vectors.len() == texts.len() && vectors.windows(2).all(|pair| pair[0].len() == pair[1].len())
        };
        vectors.filter(alike).ok_or_else(|| encoder.unusable())
    }

    /// What `classifier` says of `text`, for `tenant`.
    pub(crate) async fn classify(
        &self,
        classifier: &Reader<'_>,
        text: &str,
        tenant: &str,
    ) -> Result<Classification, ReadError> {
        let request = ClassifyRequest {
            model: classifier.name(),
            inputs: vec![input(text)],
            truncate: true,
            tenant: tenant.to_owned(),
            ..ClassifyRequest::default()
        };
        let ask = |mut client: Client| -> BoxFuture<'static, _> {
            let request = request.clone();
            Box::pin(async move { client.classify(request).await })
        };
        let answer: ClassifyResponse = self.answer(classifier, &ask).await?;
        classifier.check(answer.expert.as_ref())?;
        let ClassifyResponse { mut classifications, labels, experts, .. } = answer;
        let Some(only) = classifications.pop().filter(|_| classifications.is_empty()) else {
            return Err(classifier.unusable());
        };
        let found = Classification { labels, experts, probabilities: only.probabilities, typicality: only.typicality };
        if found.is_usable() { Ok(found) } else { Err(classifier.unusable()) }
    }

    /// The answer of the first worker that gives one.
    async fn answer<A>(
        &self,
        reader: &Reader<'_>,
        ask: &(dyn Fn(Client) -> BoxFuture<'static, Result<Response<A>, Status>> + Sync),
    ) -> Result<A, ReadError> {
        let Reader { role, target, digest } = *reader;
        let wanted = Wanted { role, target, digest: Some(digest) };
        let mut tried = ExcludedWorkers::default();
        let mut failed = None;
        for _ in 0..ATTEMPTS_MAX {
            let view = Arc::clone(&self.view.borrow());
            let worker = match place(&view, &wanted, &tried, self.draws.draw()) {
                Ok((worker, _)) => worker,
                // What a worker said is more than that there is no other.
                Err(none) => return Err(failed.unwrap_or(none)),
            };
            let status = match self.ask(&worker, ask).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let error = ReadError::Failed { role, name: target.name.clone(), why: status.message().to_owned() };
            if !another_may_answer(&status) {
                return Err(error);
            }
            failed = Some(error);
            tried.exclude(&worker);
        }
        Err(failed.unwrap_or_else(|| reader.unusable()))
    }

    async fn ask<A>(
        &self,
        worker: &Arc<Worker>,
        ask: &(dyn Fn(Client) -> BoxFuture<'static, Result<Response<A>, Status>> + Sync),
    ) -> Result<A, Status> {
        let _open = OpenStream::new(&worker.open);
        let channel = channel(&self.channels, worker)?;
        let client = EmbeddingsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = timeout(ANSWER_MAX, ask(client)).await;
        let late = |_| Status::deadline_exceeded(format!("nothing came within {} s", ANSWER_MAX.as_secs()));
        answer.map_err(late)?.map(Response::into_inner).map_err(attributed)
    }
}

fn input(text: &str) -> EmbedInput {
    EmbedInput { input: Some(Input::Text(text.to_owned())) }
}

impl Classification {
    /// Whether everything has its number, and every number is one.
    fn is_usable(&self) -> bool {
        let count = self.probabilities.len();
        let numbers = self.probabilities.iter().chain(&self.typicality);
        count > 0
            && self.labels.len() == count
            && (self.experts.is_empty() || self.experts.len() == count)
            && numbers.clone().all(|number| number.is_finite())
    }
}

/// Whether another worker may answer what one did not.
fn another_may_answer(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::NotFound | Code::ResourceExhausted)
}

/// A reader, in one version or in any.
struct Wanted<'a> {
    role: &'static str,
    target: &'a Target,
    digest: Option<&'a str>,
}

/// A worker that has the reader, and the version that it has.
fn place(
    view: &View,
    wanted: &Wanted<'_>,
    tried: &ExcludedWorkers,
    draw: u64,
) -> Result<(Arc<Worker>, String), ReadError> {
    let Wanted { role, target, digest } = *wanted;
    let expert = view.index.expert(&target.name).ok_or_else(|| ReadError::NotPart(target.clone()))?;
    let mut eligible = Decided::named(view, &target.name, expert).eligible(tried);
    if let Some(digest) = digest {
        eligible.workers.retain(|worker| worker.resident(expert) == Ok(digest));
    }
    match eligible.rank(draw) {
        Ok(Chosen { worker, .. }) => {
            let digest = worker.resident(expert).unwrap_or_default().to_owned();
            Ok((Arc::clone(worker), digest))
        }
        Err(unserved) => Err(ReadError::NotLoaded { role, name: target.name.clone(), why: unserved.why }),
    }
}
