//! Requests to a worker of SmolLM2 in this process.

use slm_proto::v1::{
    self, Choice, Completion, GenerateRequest, Message, Messages, Sampling, generate_request::Input,
    sampling::Constraint,
};
pub(crate) use slm_tests::smollm2::worker;
use slm_tests::{smollm2::MODEL, tiny::Worker};
use tonic::Status;

/// A request for an answer of that kind, sampled at temperature 1.
pub(crate) fn request(prompt: &str, seed: u64, max_tokens: u32, constraint: Option<Constraint>) -> GenerateRequest {
    let message = Message { role: "user".into(), content: prompt.into(), ..Default::default() };
    GenerateRequest {
        model: MODEL.into(),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        sampling: Some(Sampling { temperature: Some(1.0), seed: Some(seed), constraint, ..Default::default() }),
        max_tokens: Some(max_tokens),
        ..Default::default()
    }
}

pub(crate) fn schema(schema: &serde_json::Value) -> Option<Constraint> {
    Some(Constraint::JsonSchema(schema.to_string()))
}

pub(crate) fn regex(text: &str) -> Option<Constraint> {
    Some(Constraint::Regex(text.into()))
}

pub(crate) fn choice(strings: &[&str]) -> Option<Constraint> {
    Some(Constraint::Choice(Choice { strings: strings.iter().map(|&string| string.to_owned()).collect() }))
}

pub(crate) async fn complete(worker: &Worker, request: GenerateRequest) -> Result<Completion, Status> {
    worker.generation.clone().complete(request).await.map(tonic::Response::into_inner)
}

pub(crate) fn is_whole(completion: &Completion) -> bool {
    completion.reason() == v1::FinishReason::Stop
}
