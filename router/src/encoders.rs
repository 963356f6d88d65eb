//! Vectors of texts for the router's own use: the workers of a model with the task Embed make them.
//!
//! Nothing waits for a worker here: a request that cannot be compared with examples now is routed without that.

use std::{sync::Arc, time::Duration};

use slm_crds::route::Target;
use slm_proto::v1::{EmbedInput, EmbedRequest, EmbedResponse, embed_input::Input, embeddings_client::EmbeddingsClient};
use thiserror::Error;
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Response, Status};

use crate::{
    absence::Absence,
    decide::Decided,
    draws::Draws,
    eligible::ExcludedWorkers,
    encode::ANSWER_BYTES_MAX,
    events::{OpenStream, attributed},
    fleet::{Channels, channel},
    rank::Chosen,
    similarity::unit,
    view::{View, Worker},
};

/// Workers that are asked for one batch.
const ATTEMPTS_MAX: usize = 3;
/// Longest time of an answer to a batch. A request waits less; vectors of examples are made in the background, where nobody else
/// would give up.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The encoders of a swarm.
#[derive(Clone)]
pub(crate) struct Encoders {
    view: watch::Receiver<Arc<View>>,
    channels: Channels,
    draws: Arc<Draws>,
}

/// The reason why there are no vectors.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum EncodeError {
    /// The swarm has no such model or adapter.
    #[error("the {} `{}` is not part of the swarm", .0.kind, .0.name)]
    NotPart(Target),
    /// No worker has it.
    #[error("the encoder `{name}` is not loaded on any worker: {why}")]
    NotLoaded { name: String, why: Absence },
    /// A worker refused, or did not answer.
    #[error("the encoder `{name}` did not answer: {why}")]
    Failed { name: String, why: String },
    /// Another version answered.
    #[error("the encoder `{0}` is being replaced")]
    Replaced(String),
    /// A worker's answer is no vector for each text.
    #[error("the encoder `{0}` made no usable vectors")]
    Unusable(String),
}

impl Encoders {
    pub(crate) fn new(view: watch::Receiver<Arc<View>>, channels: Channels) -> Self {
        Self { view, channels, draws: Arc::default() }
    }

    /// The version of `encoder` that would answer now.
    pub(crate) fn digest(&self, encoder: &Target) -> Result<String, EncodeError> {
        let view = Arc::clone(&self.view.borrow());
        place(&view, encoder, None, &ExcludedWorkers::default(), self.draws.draw()).map(|(_, digest)| digest)
    }

    /// Vectors of `texts`, of unit length, by this version of `encoder`, for `tenant`.
    pub(crate) async fn encode(
        &self,
        (encoder, digest): (&Target, &str),
        texts: &[String],
        tenant: &str,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let mut tried = ExcludedWorkers::default();
        let mut failed = None;
        for _ in 0..ATTEMPTS_MAX {
            let view = Arc::clone(&self.view.borrow());
            let worker = match place(&view, encoder, Some(digest), &tried, self.draws.draw()) {
                Ok((worker, _)) => worker,
                // What a worker said is more than that there is no other.
                Err(none) => return Err(failed.unwrap_or(none)),
            };
            let status = match self.ask(&worker, encoder, texts, tenant).await {
                Ok(answer) => return usable((encoder, digest), texts.len(), answer),
                Err(status) => status,
            };
            let error = EncodeError::Failed { name: encoder.name.clone(), why: status.message().to_owned() };
            if !another_may_answer(&status) {
                return Err(error);
            }
            failed = Some(error);
            tried.exclude(&worker);
        }
        Err(failed.unwrap_or_else(|| EncodeError::Unusable(encoder.name.clone())))
    }

    async fn ask(
        &self,
        worker: &Arc<Worker>,
        encoder: &Target,
        texts: &[String],
        tenant: &str,
    ) -> Result<EmbedResponse, Status> {
        let _open = OpenStream::new(&worker.open);
        let channel = channel(&self.channels, worker)?;
        let input = |text: &String| EmbedInput { input: Some(Input::Text(text.clone())) };
        let request = EmbedRequest {
            model: encoder.name.clone(),
            inputs: texts.iter().map(input).collect(),
            truncate: true,
            tenant: tenant.to_owned(),
            ..EmbedRequest::default()
        };
        let mut client = EmbeddingsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = timeout(ANSWER_MAX, client.embed(request)).await;
        let late = |_| Status::deadline_exceeded(format!("nothing came within {} s", ANSWER_MAX.as_secs()));
        answer.map_err(late)?.map(Response::into_inner).map_err(attributed)
    }
}

/// The vectors of an answer: one of unit length for each of `texts`, all of one size, by this version of the encoder.
fn usable(
    (encoder, digest): (&Target, &str),
    texts: usize,
    answer: EmbedResponse,
) -> Result<Vec<Vec<f32>>, EncodeError> {
    let EmbedResponse { embeddings, expert, .. } = answer;
    if expert.is_none_or(|expert| expert.digest != digest) {
        return Err(EncodeError::Replaced(encoder.name.clone()));
    }
    let vectors: Option<Vec<_>> = embeddings.into_iter().map(|embedding| unit(embedding.values)).collect();
    let alike = |vectors: &Vec<Vec<f32>>| {
        vectors.len() == texts && vectors.windows(2).all(|pair| pair[0].len() == pair[1].len())
    };
    vectors.filter(alike).ok_or_else(|| EncodeError::Unusable(encoder.name.clone()))
}

/// Whether another worker may answer what one did not.
fn another_may_answer(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::NotFound | Code::ResourceExhausted)
}

/// A worker that has the encoder, in this version if it matters, and the version that it has.
fn place(
    view: &View,
    encoder: &Target,
    digest: Option<&str>,
    tried: &ExcludedWorkers,
    draw: u64,
) -> Result<(Arc<Worker>, String), EncodeError> {
    let expert = view.index.expert(&encoder.name).ok_or_else(|| EncodeError::NotPart(encoder.clone()))?;
    let mut eligible = Decided::named(view, &encoder.name, expert).eligible(tried);
    if let Some(digest) = digest {
        eligible.workers.retain(|worker| worker.resident(expert) == Ok(digest));
    }
    match eligible.rank(draw) {
        Ok(Chosen { worker, .. }) => {
            let digest = worker.resident(expert).unwrap_or_default().to_owned();
            Ok((Arc::clone(worker), digest))
        }
        Err(unserved) => Err(EncodeError::NotLoaded { name: encoder.name.clone(), why: unserved.why }),
    }
}
