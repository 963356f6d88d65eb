//! `slm.v1.Generation` of a worker: checks, tokenises, submits, and turns what comes back into messages.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures::{Stream, StreamExt, stream};
use slm_convert::chat::ChatMessage;
use slm_proto::{
    timeout,
    v1::{self, generate_request, generate_response::Event, generation_server::Generation},
};
use tonic::{Request, Response, Status};

use super::{Shared, answer::Answer, status};
use crate::{
    adapters::AdapterLease,
    admit::admit,
    engine::Job,
    text::{Input, Reading, TextStream},
};

/// Prompts longer than this are tokenised off the network threads.
const INLINE_PROMPT_BYTES_MAX: usize = 4096;

pub(crate) struct Generate(pub(crate) Shared);

type Responses = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Generation for Generate {
    type GenerateStream = Responses;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Responses>, Status> {
        let (started, answer) = self.begin(request).await?;
        let first = v1::GenerateResponse { event: Some(Event::Started(started)) };
        let rest = stream::unfold(answer, |mut answer| async move {
            let next = answer.next().await?;
            Some((next, answer))
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(rest))))
    }

    async fn complete(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::Completion>, Status> {
        let (started, mut answer) = self.begin(request).await?;
        let mut completion = v1::Completion { started: Some(started), ..Default::default() };
        while let Some(response) = answer.next().await {
            match response?.event {
                Some(Event::Delta(delta)) => {
                    completion.text.push_str(&delta.text);
                    completion.logprobs.extend(delta.logprobs);
                }
                Some(Event::Finished(finished)) => {
                    completion.reason = finished.reason;
                    completion.usage = finished.usage;
                }
                Some(Event::Started(_)) | None => {}
            }
        }
        Ok(Response::new(completion))
    }
}

impl Generate {
    async fn begin(&self, request: Request<v1::GenerateRequest>) -> Result<(v1::Started, Answer), Status> {
        if *self.0.draining.borrow() {
            return Err(status::draining());
        }
        let deadline = timeout(request.metadata()).and_then(|timeout| Instant::now().checked_add(timeout));
        let mut request = request.into_inner();
        // The version is fixed here: what is loaded later under this name is for later requests.
        let adapter = self.expert(&request.model)?;
        let prompt = self.tokens(request.input.take(), request.parse_special_tokens, adapter.clone()).await?;
        let own_ends = adapter.as_ref().map(|lease| lease.info.chat.eos_token_ids.as_slice()).unwrap_or_default();
        let admitted = admit(&request, prompt.len(), own_ends, &self.0.model.limits)?;
        let prompt_tokens = prompt.len() as u32;
        let expert = self.describe(adapter.as_deref());
        let events = self.0.model.engine.submit(Job {
            prompt,
            adapter,
            sampling: admitted.sampling,
            tokens_max: admitted.tokens_max,
            stop_ids: admitted.stop_ids,
            priority: request.priority,
            deadline,
        })?;
        let bytes = self.0.model.token_bytes.clone();
        let text = bytes.clone().map(|bytes| TextStream::new(bytes, admitted.stop));
        let answer = Answer::new(events, text, bytes, prompt_tokens);
        let started =
            v1::Started { request_id: request.request_id, expert: Some(expert), prompt_tokens, decision: None };
        Ok((started, answer))
    }

    fn expert(&self, name: &str) -> Result<Option<Arc<AdapterLease>>, Status> {
        let model = &self.0.model;
        if name == model.name {
            return Ok(None);
        }
        model.adapters.lease(name).map(Some).ok_or_else(|| {
            let mut known = model.adapters.names();
            known.push(model.name.clone());
            status::unknown_model(name, &known)
        })
    }

    fn describe(&self, adapter: Option<&AdapterLease>) -> v1::Expert {
        let model = &self.0.model;
        let (kind, name, digest) = match adapter {
            None => (v1::ExpertKind::SlmModel, &model.name, &model.bundle.info.digest),
            Some(lease) => (v1::ExpertKind::LoraAdapter, &lease.info.name, &lease.info.digest),
        };
        v1::Expert { kind: kind.into(), name: name.clone(), model: model.name.clone(), digest: digest.clone() }
    }

    async fn tokens(
        &self,
        input: Option<generate_request::Input>,
        parse_special_tokens: Option<bool>,
        adapter: Option<Arc<AdapterLease>>,
    ) -> Result<Vec<u32>, Status> {
        let input = match input {
            None => return Err(status::missing("input", "send messages, prompt or token_ids")),
            Some(generate_request::Input::Prompt(text)) => Input::Prompt(text),
            Some(generate_request::Input::TokenIds(ids)) => Input::TokenIds(ids.ids),
            Some(generate_request::Input::Messages(messages)) => {
                if messages.messages.is_empty() {
                    return Err(status::missing("messages", "send at least one"));
                }
                let name = |name: String| Some(name).filter(|name| !name.is_empty());
                let message = |m: v1::Message| ChatMessage { role: m.role, content: m.content, name: name(m.name) };
                Input::Messages(messages.messages.into_iter().map(message).collect())
            }
        };
        let model = self.0.model.clone();
        let inline = text_bytes(&input) <= INLINE_PROMPT_BYTES_MAX;
        let read = move || {
            let template = adapter.as_ref().and_then(|lease| lease.info.chat.template.as_ref());
            model.prompter.tokens(input, Reading { parse_special_tokens, template }, &model.name)
        };
        if inline {
            return Ok(read()?);
        }
        let task = tokio::task::spawn_blocking(read);
        Ok(task.await.map_err(|error| Status::internal(error.to_string()))??)
    }
}

fn text_bytes(input: &Input) -> usize {
    match input {
        Input::Messages(messages) => messages.iter().map(|message| message.content.len()).sum(),
        Input::Prompt(text) => text.len(),
        Input::TokenIds(_) => 0,
    }
}
