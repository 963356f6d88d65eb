//! Answers: a response, or the events of one.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde_json::Value;
use slm_proto::v1::{Completion, Delta, Finished, ToolCallDelta};

use super::{request::Asked, writer::Writer};
use crate::{
    dispatch::Call,
    events::Event,
    http::{Shared, body, error::ApiError, logprobs::TokenNames, reply::identified, sse},
    refusal::Refusal,
};

/// Answers. The status line is sent with the first token, so that what fails before has a status of its own.
pub(super) async fn respond(
    dispatcher: &Shared,
    (asked, hold): body::Read<Asked>,
    call: &Call,
) -> Result<Response, ApiError> {
    let Asked { request, options, echo } = asked;
    let answer = dispatcher.generate(&request, call).await.map_err(|refusal| options.names.error(refusal, 0))?;
    let names = request.logprobs.map(|_| if options.token_ids { TokenNames::Ids } else { TokenNames::Texts });
    let writer = Writer::new(request.model.clone(), echo, names);
    let id = request.request_id.clone();
    drop((request, hold));
    let expert = answer.started.expert.clone();
    let response = if options.stream {
        sse::stream(Body::from_stream(events(writer, answer.relayed().1)))
    } else {
        Json(whole(writer, answer.complete().await?)).into_response()
    };
    Ok(identified(response, expert.as_ref(), &id))
}

/// A whole answer is a stream of one part.
fn whole(mut writer: Writer, completion: Completion) -> Value {
    let finished =
        Finished { reason: completion.reason, usage: completion.usage, stop: completion.stop, cost: completion.cost };
    let calls = completion.tool_calls.into_iter().zip(0..).map(|(call, index)| ToolCallDelta {
        index,
        id: call.id,
        name: call.name,
        arguments: call.arguments,
    });
    writer.delta(Delta {
        text: completion.text,
        reasoning: completion.reasoning,
        logprobs: completion.logprobs,
        tool_calls: calls.collect(),
        ..Default::default()
    });
    let mut events = writer.finish(&finished);
    events.pop().map(|mut event| event["response"].take()).unwrap_or_default()
}

fn events(
    mut writer: Writer,
    relayed: impl Stream<Item = Result<Event, Refusal>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let opening = written(&writer.opening());
    // What ends it is the last event; nothing is asked for after it.
    let rest = relayed.scan(Some(writer), |writer, item| {
        let bytes = writer.take().map(|mut now| match item {
            Ok(Event::Delta(delta)) => {
                let bytes = written(&now.delta(delta));
                *writer = Some(now);
                bytes
            }
            Ok(Event::Finished(finished)) => written(&now.finish(&finished)),
            Err(refusal) => written(&now.fail(&refusal.into())),
        });
        std::future::ready(bytes)
    });
    let some = |bytes: &Bytes| std::future::ready(!bytes.is_empty());
    stream::once(std::future::ready(opening)).chain(rest).filter(some).map(Ok)
}

fn written(events: &[Value]) -> Bytes {
    let mut bytes = String::new();
    for event in events {
        let kind = event["type"].as_str().unwrap_or_default();
        bytes.push_str(&format!("event: {kind}\ndata: {event}\n\n"));
    }
    bytes.into()
}
