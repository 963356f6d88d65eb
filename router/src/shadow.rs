//! Shadows: copies of requests for a candidate, whose answers are compared with those that callers get, and never given.
//!
//! A copy is sent when the answer is complete, so it delays nothing; it comes after everybody's requests on the worker, takes no
//! caller's share, and reaches what its request might have reached. What is kept of copies is bounded: one for which there is no place is
//! not sent.

use std::{sync::Arc, time::Duration};

use slm_crds::route::Target;
use slm_proto::v1::{CandidateOutcome, Decision, Delta, GenerateRequest};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::Status;

use crate::{
    boundary::{Boundary, Bounds},
    dispatch::{Call, Dispatcher, Reply, Wanted},
    draws::is_sampled,
    events::say,
    metrics::Copied,
    normal::agree,
    refusal::Refusal,
};

/// Copies at a time, those whose answers are still on their way to callers among them.
const COPIES_MAX: usize = 32;
/// Of an answer that is compared.
const BYTES_MAX: usize = 256 << 10;
/// For the candidate's answer.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Places of copies.
#[derive(Debug)]
pub(crate) struct Shadows(Arc<Semaphore>);

impl Default for Shadows {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(COPIES_MAX)))
    }
}

/// What an answer says, until it is complete and its request is copied. Dropped before, nothing is copied.
pub(crate) struct Tap {
    text: String,
    copy: Box<Copy>,
}

/// A copy of a request.
struct Copy {
    dispatcher: Arc<Dispatcher>,
    request: GenerateRequest,
    call: Call,
    /// What the request might have reached.
    bounds: Bounds,
    route: String,
    to: Target,
    _place: OwnedSemaphorePermit,
}

impl Tap {
    /// `None` for a request that is not copied.
    pub(crate) fn new(
        dispatcher: &Arc<Dispatcher>,
        request: &GenerateRequest,
        call: &Call,
        bounds: Bounds,
    ) -> Option<Self> {
        let view = dispatcher.view();
        let route = view.index.route(&request.model)?;
        let shadow = route.shadow().filter(|shadow| is_sampled(&request.request_id, shadow.percent))?;
        let Ok(place) = Arc::clone(&dispatcher.shadows.0).try_acquire_owned() else {
            dispatcher.metrics.copied(&route.name, &shadow.to.name, Copied::skipped);
            return None;
        };
        let copy = Box::new(Copy {
            dispatcher: Arc::clone(dispatcher),
            request: GenerateRequest { explain: false, logprobs: None, ..request.clone() },
            call: Call {
                caller: call.caller.shadow(),
                api: call.api,
                deadline: None,
                retrieval: call.retrieval.clone(),
            },
            bounds,
            route: route.name.clone(),
            to: shadow.to.clone(),
            _place: place,
        });
        Some(Self { text: String::new(), copy })
    }

    /// The next piece of the answer.
    pub(crate) fn add(&mut self, delta: &Delta) {
        if self.text.len() <= BYTES_MAX {
            say(&mut self.text, delta);
        }
    }

    /// The answer is complete: the candidate is asked, while nobody waits.
    pub(crate) fn send(self) {
        let Self { text, copy } = self;
        if text.len() > BYTES_MAX {
            copy.dispatcher.metrics.copied(&copy.route, &copy.to.name, Copied::skipped);
            return;
        }
        tokio::spawn(async move {
            let ended = copy.dispatcher.shutdown.clone();
            tokio::select! {
                () = ended.cancelled() => {}
                () = copy.compare(&text) => {}
            }
        });
    }
}

impl Copy {
    async fn compare(&self, given: &str) {
        let begun = Instant::now();
        let answer = async {
            match self.bounds {
                Bounds::Within(only) => self.ask(begun + TIME_MAX, only).await,
                Bounds::Beyond(may_leave) => self.ask(begun + TIME_MAX, may_leave).await,
            }
        };
        let answer = timeout_at(begun + TIME_MAX, answer).await.unwrap_or(Err(Refusal::DeadlineExceeded));
        let result = match &answer {
            Ok(text) if agree(text, given) => Copied::agree,
            Ok(_) => Copied::differ,
            Err(_) => Copied::failed,
        };
        self.dispatcher.metrics.copied(&self.route, &self.to.name, result);
        let (code, milliseconds) = (answer.err().map(|refusal| refusal.code()), begun.elapsed().as_millis());
        tracing::debug!(route = self.route, to = self.to.name, ?result, ?code, milliseconds, "a copy was compared");
    }

    /// The candidate's answer.
    async fn ask<B: Boundary>(&self, deadline: Instant, boundary: B) -> Result<String, Refusal> {
        let (dispatcher, wanted) = (&self.dispatcher, Wanted::target(&self.to));
        let call = Call {
            caller: self.call.caller.clone(),
            deadline: Some(deadline),
            retrieval: self.call.retrieval.clone(),
            ..self.call
        };
        let Reply::Of(mut answer) = dispatcher.tried(&self.request, &call, wanted, deadline, boundary).await? else {
            return Err(Refusal::Worker(Status::internal("a candidate was asked, and its route answered")));
        };
        match answer.read(dispatcher.limits.worker_idle).await {
            Ok(Some(_)) => Ok(answer.text()),
            Ok(None) => Err(Refusal::Worker(Status::out_of_range("the answer is too long to be compared"))),
            Err(status) => Err(Refusal::Worker(status)),
        }
    }
}

impl Dispatcher {
    /// The decision, with what copies have shown so far.
    pub(crate) fn agreement(&self, mut decision: Decision) -> Decision {
        let route = decision.route.clone();
        for candidate in decision.candidates.iter_mut().filter(|candidate| candidate.rule == "shadow") {
            let Some(to) = candidate.expert.as_ref().map(|expert| expert.name.clone()) else { continue };
            let count = |result| self.metrics.copies(&route, &to, result).get();
            let (agreed, differed) = (count(Copied::agree), count(Copied::differ));
            let compared = agreed + differed;
            candidate.why_not += &format!("; {agreed} of {compared} agreed on this router");
            if candidate.outcome() == CandidateOutcome::NotAsked && compared > 0 {
                // A count of copies is exact.
                #[allow(clippy::cast_precision_loss)]
                let share = agreed as f64 / compared as f64;
                candidate.score = Some(share);
            }
        }
        decision
    }
}
