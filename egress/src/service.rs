//! `slm.v1.Egress`, for the routers of the swarm.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use slm_listen::deadline::Deadline;
use slm_proto::{
    trailers,
    v1::{
        Expert, ExpertKind, ExternalRequest, GenerateRequest, GenerateResponse, Started, WatchStateRequest,
        WorkerState, egress_server::Egress, generate_request::Input, generate_response::Event,
    },
};
use slm_tls::{Identity, server::Peer};
use tokio::time::{sleep_until, timeout_at};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, metadata::MetadataValue};

use crate::{
    body::{Unsupported, body},
    call::{Call, Shared},
    model::Model,
    restore::Leaving,
};

/// The service.
pub(crate) struct Service(pub(crate) Arc<Shared>);

type Answers = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

/// Refuses everybody but routers. `guarded`: callers need a certificate.
pub(crate) fn admit(guarded: bool) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| match request.extensions().get::<Peer>().and_then(|peer| peer.identity) {
        _ if !guarded => Ok(request),
        Some(Identity::Router) => Ok(request),
        Some(other) => Err(Status::permission_denied(format!("only routers leave the swarm, not its {other}"))),
        None => Err(Status::permission_denied("the caller's certificate names no router of a swarm")),
    }
}

#[tonic::async_trait]
impl Egress for Service {
    type GenerateStream = Answers;
    type WatchStateStream = Pin<Box<dyn Stream<Item = Result<WorkerState, Status>> + Send>>;

    async fn generate(&self, request: Request<ExternalRequest>) -> Result<Response<Answers>, Status> {
        let deadline = Deadline::of(&request);
        let mut external = request.into_inner();
        let request = external.request.take().ok_or_else(|| Status::invalid_argument("`request` is missing"))?;
        let answer = answer(Arc::clone(&self.0), external, request);
        let begun = async {
            match deadline {
                None => answer.await,
                Some(deadline) => timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(late())),
            }
        };
        let cut = self.0.cut.clone();
        let answer = tokio::select! {
            begun = begun => begun?,
            () = cut.cancelled() => return Err(cut_off()),
        };
        // A deadline ends what a caller reads, too.
        let end = stream::once(async move {
            let passed = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => Err(late()),
                () = cut.cancelled() => Err(cut_off()),
            }
        });
        let ended = stream::select(answer.map(Some).chain(stream::once(async { None })), end.map(Some));
        Ok(Response::new(
            ended.take_while(|item| std::future::ready(item.is_some())).filter_map(std::future::ready).boxed(),
        ))
    }

    async fn watch_state(&self, _: Request<WatchStateRequest>) -> Result<Response<Self::WatchStateStream>, Status> {
        // It ends with the state that says so when the egress drains: it would keep the connection open.
        let states = WatchStream::new(self.0.registry.states()).flat_map(|state| {
            let last = state.draining.then_some(None);
            stream::iter([Some(Some(state)), last].into_iter().flatten())
        });
        let states = states.take_while(|state| std::future::ready(state.is_some()));
        Ok(Response::new(states.filter_map(std::future::ready).map(Ok).boxed()))
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the deadline passed before the answer was complete")
}

fn cut_off() -> Status {
    Status::unavailable("the egress is shutting down; ask again")
}

/// The answer, with its first piece.
async fn answer(shared: Arc<Shared>, external: ExternalRequest, request: GenerateRequest) -> Result<Answers, Status> {
    let model = shared.registry.model(&request.model)?;
    let place = Place::take(&shared, &model).await?;
    let mut leaving = if external.redact {
        Leaving::Redacted(Box::new(shared.redactor.vault(texts(&request))))
    } else {
        Leaving::AsTheyAre
    };
    let body = body(&request, &model.spec.model, &mut leaving).map_err(|error| refused(&error))?;
    let mut call = Call::begin(&shared, &model, &external, &request, (&body, leaving)).await?;
    let first = call.next().await?;
    let expert = Expert {
        kind: ExpertKind::ExternalModel.into(),
        name: model.name.clone(),
        model: model.spec.model.clone(),
        digest: String::new(),
    };
    let started = Started {
        request_id: request.request_id.clone(),
        expert: Some(expert),
        prompt_tokens: 0,
        ..Started::default()
    };
    let begun = [Event::Started(started)].into_iter().chain(first);
    let response = |event| Ok(GenerateResponse { event: Some(event) });
    let rest = stream::unfold(Some((call, place)), |open| async {
        let (mut call, place) = open?;
        match call.next().await {
            Ok(events) if events.is_empty() => None,
            Ok(events) => Some((Ok(events), Some((call, place)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    let rest = rest.flat_map(move |item| {
        let items: Vec<Result<GenerateResponse, Status>> = match item {
            Ok(events) => events.into_iter().map(response).collect(),
            Err(status) => vec![Err(status)],
        };
        stream::iter(items)
    });
    Ok(stream::iter(begun.map(response).collect::<Vec<_>>()).chain(rest).boxed())
}

/// The place of a call, given back when it ends.
struct Place {
    shared: Arc<Shared>,
    model: Arc<Model>,
}

impl Place {
    async fn take(shared: &Arc<Shared>, model: &Arc<Model>) -> Result<Self, Status> {
        model.place(|| shared.registry.publish()).await?.forget();
        let place = Self { shared: Arc::clone(shared), model: Arc::clone(model) };
        shared.registry.publish();
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.model.leave();
        self.shared.registry.publish();
    }
}

/// What a request's texts call placeholders themselves stays theirs.
fn texts(request: &GenerateRequest) -> Vec<&str> {
    let Some(Input::Messages(conversation)) = &request.input else { return Vec::new() };
    let messages = conversation.messages.iter();
    messages
        .flat_map(|message| {
            let arguments = message.tool_calls.iter().map(|call| call.arguments.as_str());
            [message.content.as_str()].into_iter().chain(arguments)
        })
        .collect()
}

fn refused(error: &Unsupported) -> Status {
    let mut status = Status::invalid_argument(error.to_string());
    status.metadata_mut().insert(trailers::ERROR_FIELD, MetadataValue::from_static(error.field));
    status
}
