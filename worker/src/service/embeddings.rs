//! `slm.v1.Embeddings`: validates, tokenises and submits texts, and returns their vectors, scores or labels.

use std::{sync::Arc, time::Instant};

use slm_listen::deadline::Deadline;
use slm_proto::v1::{self, embed_input::Input, embeddings_server::Embeddings};
use tonic::{Request, Response, Status};

use super::{Shared, generation::within, input, status};
use crate::{
    adapters::AdapterVersion,
    embed::{Job, TextReader, Tokens},
    engine::StepFailure,
    model::Task,
    permits::Permit,
};

/// Bound on the inputs, or documents, of a request, as OpenAI has it.
const INPUTS_MAX: usize = 2048;
/// Larger requests are tokenised off the network threads.
const INLINE_BYTES_MAX: usize = 4096;
/// Vectors that a head reads at once on a network thread: a few tenths of a millisecond.
const INLINE_VECTORS_MAX: usize = 4;

pub(crate) struct Encode(pub(crate) Shared);

/// What all requests have.
struct Head<'a> {
    task: Task,
    model: &'a str,
    tenant: &'a str,
    priority: i32,
    deadline: Option<Instant>,
}

/// A request that has its place.
struct Entered {
    task: Task,
    tenant: Arc<str>,
    priority: i32,
    deadline: Option<Instant>,
    adapter: Option<Arc<AdapterVersion>>,
    permit: Arc<Permit>,
    expert: v1::Expert,
}

/// Results of a request's texts, with the tokens of all.
type Results = (Vec<Vec<f32>>, u32);

#[tonic::async_trait]
impl Embeddings for Encode {
    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let deadline = deadline(&request);
        let v1::EmbedRequest { model, inputs, dimensions, truncate, request_id, priority, tenant, .. } =
            request.into_inner();
        let head = Head { task: Task::Embed, model: &model, tenant: &tenant, priority, deadline };
        let entered = self.enter(&head)?;
        let width = self.0.encoder(Task::Embed)?.embedder.width();
        let dimensions = check_dimensions(dimensions, width)?;
        check_count("inputs", inputs.len(), "send at least one text")?;
        let expert = entered.expert.clone();
        let (vectors, prompt_tokens) = self.texts(entered, inputs, truncate, dimensions).await?;
        let embeddings = vectors.into_iter().map(|values| v1::Embedding { values }).collect();
        Ok(Response::new(v1::EmbedResponse { embeddings, prompt_tokens, expert: Some(expert), request_id }))
    }

    async fn rerank(&self, request: Request<v1::RerankRequest>) -> Result<Response<v1::RerankResponse>, Status> {
        let deadline = deadline(&request);
        let v1::RerankRequest { model, query, documents, top_n, truncate, request_id, priority, tenant, .. } =
            request.into_inner();
        let head = Head { task: Task::Rerank, model: &model, tenant: &tenant, priority, deadline };
        let entered = self.enter(&head)?;
        if query.is_empty() {
            return Err(status::missing("query", "send a text"));
        }
        check_count("documents", documents.len(), "send at least one text")?;
        let top_n = check_top_n(top_n, documents.len())?;
        let expert = entered.expert.clone();
        let bytes = query.len() + documents.iter().map(String::len).sum::<usize>();
        let read = move |texts: &TextReader| {
            let query = texts.query(&query).map_err(|error| status::refused_text("query", &error))?;
            let pair = |(index, document): (usize, String)| {
                let tokens = query.with(&document, truncate);
                tokens.map_err(|error| status::refused_text(&format!("documents[{index}]"), &error))
            };
            documents.into_iter().enumerate().map(pair).collect()
        };
        let (scores, prompt_tokens) = self.results(entered, bytes, 1, read).await?;
        let results = ranked(scores, top_n);
        Ok(Response::new(v1::RerankResponse { results, prompt_tokens, expert: Some(expert), request_id }))
    }

    async fn classify(&self, request: Request<v1::ClassifyRequest>) -> Result<Response<v1::ClassifyResponse>, Status> {
        let deadline = deadline(&request);
        let v1::ClassifyRequest { model, inputs, truncate, request_id, priority, tenant, .. } = request.into_inner();
        // A head reads the vectors of a model that embeds.
        let by_head = self.0.expert(&model)?.filter(|adapter| adapter.info.head.is_some());
        let task = if by_head.is_some() { Task::Embed } else { Task::Classify };
        let head = Head { task, model: &model, tenant: &tenant, priority, deadline };
        let entered = self.enter(&head)?;
        check_count("inputs", inputs.len(), "send at least one text")?;
        let encoder = self.0.encoder(task)?;
        let (expert, adapter) = (Some(entered.expert.clone()), entered.adapter.clone());
        if let Some(head) = adapter.and_then(|adapter| adapter.info.head.clone()) {
            let width = encoder.embedder.width();
            let (vectors, prompt_tokens) = self.texts(entered, inputs, truncate, width).await?;
            let classifications = self.classified(&head, &tenant, vectors).await?;
            let names = head.labels().iter().map(|label| (label.name.clone(), label.expert.clone()));
            let (labels, experts) = names.unzip();
            let response = v1::ClassifyResponse { classifications, labels, prompt_tokens, expert, request_id, experts };
            return Ok(Response::new(response));
        }
        let labels = encoder.head.as_ref().map(|head| head.labels.clone()).unwrap_or_default();
        let (rows, prompt_tokens) = self.texts(entered, inputs, truncate, labels.len()).await?;
        let classification = |probabilities| v1::Classification { probabilities, typicality: None };
        let classifications = rows.into_iter().map(classification).collect();
        let response =
            v1::ClassifyResponse { classifications, labels, prompt_tokens, expert, request_id, experts: Vec::new() };
        Ok(Response::new(response))
    }
}

impl Encode {
    /// A place for the request, before any work, so that a request without one costs nothing.
    fn enter(&self, head: &Head<'_>) -> Result<Entered, Status> {
        if *self.0.draining.borrow() {
            return Err(status::draining());
        }
        let Head { task, model, priority, deadline, .. } = *head;
        let tenant = input::tenant(head.tenant)?;
        // Fixes the version: later loads of this name affect only later requests.
        let adapter = self.0.expert(model)?;
        let permit = self.0.encoder(task)?.embedder.enter(&tenant, priority)?;
        let expert = self.0.describe(adapter.as_deref());
        Ok(Entered { task, tenant, priority, deadline, adapter, permit, expert })
    }

    /// Results of texts by themselves.
    async fn texts(
        &self,
        entered: Entered,
        inputs: Vec<v1::EmbedInput>,
        truncate: bool,
        width: usize,
    ) -> Result<Results, Status> {
        let bytes = inputs.iter().map(bytes).sum();
        let read = move |texts: &TextReader| {
            let all = inputs.into_iter().enumerate();
            all.map(|(index, input)| tokens(texts, index, input, truncate)).collect()
        };
        self.results(entered, bytes, width, read).await
    }

    /// Results, of `width` numbers, of the texts that `read` makes of so many bytes.
    async fn results(
        &self,
        entered: Entered,
        bytes: usize,
        width: usize,
        read: impl FnOnce(&TextReader) -> Result<Vec<Tokens>, Status> + Send + 'static,
    ) -> Result<Results, Status> {
        let Entered { task, tenant, priority, deadline, adapter, permit, expert } = entered;
        let mut meter = self.0.metrics.answer(&expert.model, &expert.name, Instant::now());
        let texts = within(deadline, self.read(task, &tenant, bytes, read)).await?;
        let adapter = match adapter {
            None => None,
            Some(version) => Some(within(deadline, self.0.lease(version)).await?),
        };
        if permit.is_withdrawn() {
            return Err(StepFailure::Displaced.into());
        }
        let prompt_tokens = texts.iter().map(|text| text.len() as u32).sum();
        let job = Job { texts, adapter, dimensions: width, priority, deadline };
        let reply = self.0.encoder(task)?.embedder.submit(permit, job)?;
        let results = within(deadline, async { Ok(reply.await.map_err(|_| status::engine_gone())??) }).await;
        match &results {
            Ok(_) => meter.finished(prompt_tokens, 0),
            Err(_) => meter.failed(),
        }
        Ok((results?, prompt_tokens))
    }

    /// What `head` says of vectors; of many, off the network threads.
    async fn classified(
        &self,
        head: &Arc<slm_head::Head>,
        tenant: &str,
        vectors: Vec<Vec<f32>>,
    ) -> Result<Vec<v1::Classification>, Status> {
        let classify = |head: &slm_head::Head, vectors: Vec<Vec<f32>>| {
            let one = |vector: Vec<f32>| {
                let slm_head::Classified { probabilities, typicality } = head.classify(&vector);
                v1::Classification { probabilities, typicality: Some(typicality) }
            };
            vectors.into_iter().map(one).collect()
        };
        if vectors.len() <= INLINE_VECTORS_MAX {
            return Ok(classify(head, vectors));
        }
        let (tenant, head) = (input::tenant(tenant)?, Arc::clone(head));
        let classified = self.0.text.run(&tenant, move || classify(&head, vectors)).await;
        classified.map_err(|error| Status::internal(error.to_string()))
    }

    async fn read(
        &self,
        task: Task,
        tenant: &Arc<str>,
        bytes: usize,
        read: impl FnOnce(&TextReader) -> Result<Vec<Tokens>, Status> + Send + 'static,
    ) -> Result<Vec<Tokens>, Status> {
        let shared = self.0.clone();
        let read = move || read(&shared.encoder(task)?.texts);
        if bytes <= INLINE_BYTES_MAX {
            return read();
        }
        let tokens = self.0.text.run(tenant, read).await;
        tokens.map_err(|error| Status::internal(error.to_string()))?
    }
}

fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    Deadline::of(request).map(Into::into)
}

fn check_count(field: &'static str, count: usize, expected: &'static str) -> Result<(), Status> {
    match count {
        0 => Err(status::missing(field, expected)),
        count if count > INPUTS_MAX => {
            let message = format!("{field} has {count} entries; at most {INPUTS_MAX} are taken at once");
            Err(status::out_of_range(field, message))
        }
        _ => Ok(()),
    }
}

fn check_dimensions(asked: Option<u32>, width: usize) -> Result<usize, Status> {
    let asked = asked.map_or(width, |asked| asked as usize);
    if (1..=width).contains(&asked) {
        return Ok(asked);
    }
    Err(status::out_of_range("dimensions", format!("dimensions is {asked}; vectors of this model have 1 to {width}")))
}

fn check_top_n(asked: Option<u32>, documents: usize) -> Result<usize, Status> {
    match asked {
        Some(0) => Err(status::out_of_range("top_n", "top_n is 0; ask for at least one document, or leave it out")),
        // More than there are is not wrong.
        Some(asked) => Ok((asked as usize).min(documents)),
        None => Ok(documents),
    }
}

/// The documents of the best scores.
fn ranked(scores: Vec<Vec<f32>>, top_n: usize) -> Vec<v1::RankedDocument> {
    let score = |(index, row): (usize, Vec<f32>)| v1::RankedDocument {
        index: index as u32,
        score: row.first().copied().unwrap_or_default(),
    };
    let mut results: Vec<_> = scores.into_iter().enumerate().map(score).collect();
    results.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    results.truncate(top_n);
    results
}

fn bytes(input: &v1::EmbedInput) -> usize {
    match &input.input {
        Some(Input::Text(text)) => text.len(),
        Some(Input::TokenIds(ids)) => ids.ids.len(),
        None => 0,
    }
}

fn tokens(texts: &TextReader, index: usize, input: v1::EmbedInput, truncate: bool) -> Result<Tokens, Status> {
    let tokens = match input.input {
        Some(Input::Text(text)) => texts.tokens(&text, truncate),
        Some(Input::TokenIds(ids)) => texts.given(ids.ids, truncate),
        None => return Err(status::missing("inputs", "each has a text or token_ids")),
    };
    tokens.map_err(|error| status::refused_text(&format!("inputs[{index}]"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_equal_ones_in_their_order() {
        let scores = [0.2, 0.9, 0.2, 0.95].map(|score| vec![score]);
        let indices = |top_n| ranked(scores.to_vec(), top_n).iter().map(|result| result.index).collect::<Vec<_>>();
        assert_eq!(indices(4), [3, 1, 0, 2]);
        assert_eq!(indices(2), [3, 1]);
    }

    #[test]
    fn more_than_there_are_is_all_of_them() {
        assert_eq!(check_top_n(None, 3).ok(), Some(3));
        assert_eq!(check_top_n(Some(9), 3).ok(), Some(3));
        assert!(check_top_n(Some(0), 3).is_err_and(|refused| refused.message().contains("top_n is 0")));
    }
}
