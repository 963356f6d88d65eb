//! Retrieval: passages of a route's store, put into a conversation before its expert is asked.
//!
//! Once for each request, when it is first sent: not for one that waits for its expert, or that its route answers itself, and not again
//! for another worker or a larger target. Rules, labels and similarity see what the caller wrote.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use slm_crds::retrieve::{Retrieve, RetrieveOnError};
use slm_proto::v1::{self, Citation, GenerateRequest, generate_request::Input};
use slm_retrieve::{
    Passage,
    message::{fitting, message},
    secrets::Secrets,
    store::{Store, StoreError},
};
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    classify::text,
    dispatch::{Call, Dispatcher},
    refusal::Refusal,
    route::Route,
    scores::{Comparer, ScoreError},
    view::View,
};

/// The stores of a router's routes.
pub(crate) struct Stores {
    secrets: Secrets,
    comparer: Comparer,
    open: Mutex<HashMap<String, (Retrieve, Arc<Store>)>>,
}

/// What was retrieved for one request, kept for all its attempts.
#[derive(Clone, Default)]
pub(crate) struct Retrieval(Option<Arc<Outcome>>);

/// Empty until the request is first sent.
type Outcome = OnceCell<Result<Option<Retrieved>, Refusal>>;

/// What goes into a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Retrieved {
    /// In the place of the last message of a user.
    content: String,
    /// For the caller.
    told: v1::Retrieval,
}

/// The reason why nothing was retrieved.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the encoder did not answer within {0} ms")]
    Slow(u32),
}

impl Failed {
    fn for_callers(&self) -> String {
        match self {
            Self::Store(error) => error.for_callers(),
            // Why an encoder is not loaded may name a worker.
            Self::Score(ScoreError::Read(_)) => "the encoder of the passages did not answer".to_owned(),
            other => other.to_string(),
        }
    }

    fn passes(&self) -> bool {
        match self {
            Self::Store(error) => error.passes(),
            Self::Score(error) => error.passes(),
            Self::Slow(_) => true,
        }
    }
}

impl Stores {
    pub(crate) fn new(secrets: Secrets, comparer: Comparer) -> Self {
        Self { secrets, comparer, open: Mutex::default() }
    }

    /// The store of a route, which is opened anew when the route has changed. Those of routes that are gone are closed.
    fn of(&self, view: &View, route: &str, retrieve: &Retrieve) -> Result<Arc<Store>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, store)) = open.get(route)
            && known == retrieve
        {
            return Ok(Arc::clone(store));
        }
        open.retain(|name, _| view.index.route(name).is_some());
        let store = Arc::new(Store::new(retrieve, self.secrets.clone())?);
        open.insert(route.to_owned(), (retrieve.clone(), Arc::clone(&store)));
        Ok(store)
    }

    async fn found(
        &self,
        (view, route, retrieve): (&View, &Route, &Retrieve),
        text: &str,
        tenant: &str,
    ) -> Result<Vec<Passage>, Failed> {
        let begun = Instant::now();
        let limit = Duration::from_millis(retrieve.timeout_milliseconds.into());
        let store = self.of(view, &route.name, retrieve)?;
        let vector = timeout(limit, self.comparer.vector_of(&retrieve.encoder, text, tenant)).await;
        let vector = vector.map_err(|_| Failed::Slow(retrieve.timeout_milliseconds))??;
        let passages = store.search(&vector, limit.saturating_sub(begun.elapsed())).await?;
        Ok(fitting(passages, usize::try_from(retrieve.max_bytes).unwrap_or(usize::MAX)))
    }
}

impl Retrieval {
    /// Of a request for an answer.
    pub(crate) fn wanted() -> Self {
        Self(Some(Arc::default()))
    }

    fn get(&self) -> Option<&Retrieved> {
        self.0.as_ref()?.get()?.as_ref().ok()?.as_ref()
    }

    /// What its caller is told.
    pub(crate) fn told(&self) -> Option<v1::Retrieval> {
        self.get().map(|retrieved| retrieved.told.clone())
    }

    /// The request as its expert gets it.
    pub(crate) fn apply<'r>(&self, request: &'r GenerateRequest) -> Cow<'r, GenerateRequest> {
        let Some(retrieved) = self.get() else { return Cow::Borrowed(request) };
        let mut request = request.clone();
        if let Some(Input::Messages(messages)) = &mut request.input
            && let Some(last) = messages.messages.iter_mut().rev().find(|message| message.role == "user")
        {
            last.content.clone_from(&retrieved.content);
        }
        Cow::Owned(request)
    }
}

impl Dispatcher {
    /// Retrieves what the route of a request wants, unless that was done for it.
    pub(crate) async fn retrieve(&self, view: &View, request: &GenerateRequest, call: &Call) -> Result<(), Refusal> {
        let Retrieval(Some(cell)) = &call.retrieval else { return Ok(()) };
        let Some((route, retrieve)) = view.index.route(&request.model).and_then(|it| Some((it, it.retrieve()?))) else {
            return Ok(());
        };
        let retrieved = cell.get_or_init(|| self.retrieved((view, route, retrieve), request, call)).await;
        retrieved.as_ref().map(drop).map_err(Refusal::clone)
    }

    async fn retrieved(
        &self,
        (view, route, retrieve): (&View, &Route, &Retrieve),
        request: &GenerateRequest,
        call: &Call,
    ) -> Result<Option<Retrieved>, Refusal> {
        fits(request, &route.name)?;
        let (question, begun) = (text(request), Instant::now());
        let found = self.stores.found((view, route, retrieve), question, call.caller.tenant()).await;
        let outcome = match &found {
            Ok(passages) if passages.is_empty() => "none",
            Ok(_) => "found",
            Err(_) => "error",
        };
        self.metrics.scored("retrieve", &route.name, outcome, begun);
        let failed = match found {
            Ok(passages) => {
                let content = message(retrieve.template.as_deref(), &passages, question);
                let citations = (1..).zip(&passages).map(|(number, passage)| Citation {
                    number,
                    id: passage.id.clone(),
                    source: passage.source.clone(),
                    score: passage.score,
                });
                let told = v1::Retrieval { citations: citations.collect(), error: String::new() };
                return Ok(Some(Retrieved { content, told }));
            }
            Err(failed) => failed,
        };
        tracing::warn!(route = route.name, error = %failed, "nothing was retrieved");
        let why = failed.for_callers();
        match retrieve.on_error {
            RetrieveOnError::Reject => {
                Err(Refusal::NotRetrieved { route: route.name.clone(), why, passes: failed.passes() })
            }
            RetrieveOnError::Ignore => {
                let told = v1::Retrieval { citations: Vec::new(), error: why };
                Ok(Some(Retrieved { content: question.to_owned(), told }))
            }
        }
    }
}

/// Whether passages can be put into a request: into a message of a user, whose text is nothing but text.
fn fits(request: &GenerateRequest, route: &str) -> Result<(), Refusal> {
    let refused = |field, why| Err(Refusal::NoPlace { route: route.to_owned(), field, why });
    match &request.input {
        Some(Input::Messages(messages)) if messages.messages.iter().any(|message| message.role == "user") => {}
        Some(Input::Messages(_)) => return refused("messages", "there is no message of a user; send one"),
        Some(Input::Prompt(_)) => return refused("prompt", "a raw prompt has no place for them; send messages"),
        Some(Input::TokenIds(_)) | None => return refused("token_ids", "tokens have no place for them; send messages"),
    }
    // In a passage, too, the text of a special token would be one.
    if request.parse_special_tokens == Some(true) {
        return refused("parse_special_tokens", "passages are never parsed for special tokens; remove it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{Message, Messages};

    use super::*;

    fn request(roles: &[&str]) -> GenerateRequest {
        let message = |role: &&str| Message { role: (*role).to_owned(), content: "c".to_owned(), ..Message::default() };
        let messages = Messages { messages: roles.iter().map(message).collect() };
        GenerateRequest { input: Some(Input::Messages(messages)), ..GenerateRequest::default() }
    }

    #[test]
    fn the_last_message_of_a_user_becomes_the_template() {
        let retrieval = Retrieval::wanted();
        let request = request(&["system", "user", "assistant", "user", "tool"]);
        assert!(matches!(retrieval.apply(&request), Cow::Borrowed(_)));
        let retrieved = Retrieved { content: "with".to_owned(), told: v1::Retrieval::default() };
        let cell = retrieval.0.as_ref().expect("a cell");
        cell.set(Ok(Some(retrieved))).expect("an empty cell");
        let sent = retrieval.apply(&request);
        let Some(Input::Messages(messages)) = &sent.input else { panic!("messages") };
        let contents: Vec<&str> = messages.messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(contents, ["c", "c", "c", "with", "c"]);
        assert!(Retrieval::default().told().is_none() && retrieval.told().is_some());
    }

    #[test]
    fn what_has_no_place_for_passages_is_refused_by_name() {
        let refused = |request: &GenerateRequest| fits(request, "docs").map_err(|refusal| refusal.to_string());
        assert_eq!(refused(&request(&["system", "user"])), Ok(()));
        for (request, field) in [
            (request(&["system"]), "`messages`"),
            (GenerateRequest { input: Some(Input::Prompt("x".to_owned())), ..Default::default() }, "`prompt`"),
            (
                GenerateRequest { input: Some(Input::TokenIds(v1::TokenIds::default())), ..Default::default() },
                "`token_ids`",
            ),
            (GenerateRequest { parse_special_tokens: Some(true), ..request(&["user"]) }, "`parse_special_tokens`"),
        ] {
            let message = refused(&request).expect_err(field);
            assert!(message.contains(field) && message.contains("`docs`"), "{message}");
        }
    }
}
