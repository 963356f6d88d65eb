//! Dispatch of one request, from its name to its stream.
//!
//! A request waits for a short while when no worker has its expert. It is sent to another worker when one fails, but only before
//! the first token: no worker continues another's answer. That is why an answer is handed out with its first token, not with
//! Started: until then nothing has been promised to the caller.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use slm_crds::route::{DataPolicy, Target};
use slm_pool::{FairPool, Priority};
use slm_proto::v1::{Decision, GenerateRequest, Started, generation_client::GenerationClient};
use slm_retrieve::secrets::Secrets;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, transport::Channel};

use crate::{
    absence::Absence,
    access::table::Caller,
    admission::capped,
    attempts::{Attempts, RETRY_AFTER},
    body_memory::BodyMemory,
    boundary::{Boundary, Bounds, Egress, Errand, Upstream, WorkerRef},
    cascade::{Cascades, Requests, with_probabilities},
    classify::{Classifier, Outcomes},
    config::Limits,
    decide::{Decided, Verdict},
    draws::Draws,
    egress::EgressChannels,
    eligible::ExcludedWorkers,
    ensemble::Together,
    events::{Answer, Events, OpenStream, attributed},
    fleet::{Channels, Fleet, channel},
    metrics::{Api, Meter, Metrics, Queued},
    permits::{Full, Permit, Permits},
    policy,
    quota::Quotas,
    rank::Chosen,
    readiness::ReadinessGate,
    refusal::Refusal,
    resolve::resolve,
    retrieval::{Retrieval, Stores},
    scores::{Classifiers, Comparer, Kept, Readers},
    shadow::{Shadows, Tap},
    started::StartedAnswer,
    throttle::Throttle,
    view::{View, Worker},
};

/// The dispatcher of requests.
pub(crate) struct Dispatcher {
    view: watch::Receiver<Arc<View>>,
    channels: Channels,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: ReadinessGate,
    pub(crate) shutdown: CancellationToken,
    classifier: Classifier,
    /// Thread for what is expensive about requests: large bodies and rules. Callers take turns.
    pub(crate) expensive: FairPool,
    /// Permits of the wait queue, by expert and by caller.
    wait_queue: [Permits; 2],
    /// Permits of open answers, by caller.
    pub(crate) answers: Permits,
    /// Permits of large bodies, by caller.
    pub(crate) large_bodies: Permits,
    pub(crate) large_bodies_rate: Throttle,
    pub(crate) body_memory: BodyMemory,
    pub(crate) draws: Draws,
    pub(crate) egress: EgressChannels,
    pub(crate) quotas: Quotas,
    /// What may leave the swarm at most.
    data_policy: DataPolicy,
    pub(crate) cascades: Cascades,
    pub(crate) shadows: Shadows,
    pub(crate) stores: Stores,
    /// Makes vectors of examples ahead of requests, which would do it themselves.
    _prepares: AbortOnDropHandle<()>,
}

/// The plan for a request over one view.
enum Plan<B: Boundary> {
    Send { peer: Arc<Worker>, upstream: Upstream<B>, expert: String, decision: Box<Decision> },
    Say { message: String, decision: Box<Decision> },
    Several(Box<Decision>),
    Wait { name: String, why: Absence },
}

/// What a request gets: from a worker, or of its route itself.
pub(crate) enum Reply<T> {
    Of(T),
    Message {
        message: String,
        decision: Box<Decision>,
    },
    /// The experts of its route's ensemble, if it wants them.
    Several(Together),
}

/// What a caller gets.
enum Given {
    Answer(Box<StartedAnswer>),
    Message { message: String, decision: Box<Decision> },
}

/// What a request wants beyond what its name decides.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// The worker at this URL, rather than another one.
    pub(crate) beside: Option<&'a str>,
    /// This target of its route, now.
    pub(crate) to: Option<&'a Target>,
    /// The experts of its route's ensemble, rather than the fallback.
    pub(crate) several: bool,
}

impl<'a> Wanted<'a> {
    /// This target of its route, now.
    pub(crate) fn target(to: &'a Target) -> Self {
        Self { to: Some(to), ..Self::default() }
    }
}

/// One attempt of a request, under the name of the expert that was decided for.
type Send<'r, T, B> = dyn Fn(Upstream<B>, String, Decision) -> BoxFuture<'r, Result<T, Status>> + Sync + 'r;

/// Caller, API and deadline of a request.
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) api: Api,
    pub(crate) deadline: Option<Instant>,
    /// What its route puts into it; nothing for what is no request for an answer.
    pub(crate) retrieval: Retrieval,
}

impl Call {
    /// A request of `caller`, for which nothing is retrieved.
    pub(crate) fn new(caller: Caller, api: Api, deadline: Option<Instant>) -> Self {
        Self { caller, api, deadline, retrieval: Retrieval::default() }
    }
}

impl Dispatcher {
    pub(crate) fn new(
        fleet: &Fleet,
        (limits, data_policy, secrets): (Limits, DataPolicy, Secrets),
        metrics: Arc<Metrics>,
        gate: ReadinessGate,
        shutdown: CancellationToken,
    ) -> Self {
        let of_wait_queue = |share| Permits::new(limits.wait_queue_max, share);
        let (view, channels) = (fleet.view(), fleet.channels());
        let expensive = FairPool::new("expensive", Priority::Background, 1);
        let (readers, kept) = (Readers::new(view.clone(), Arc::clone(&channels)), Kept::default());
        let classifiers = Classifiers::new(readers.clone(), kept.clone(), Arc::clone(&metrics));
        let comparer = Comparer::new(readers, kept, Arc::clone(&metrics));
        let stores = Stores::new(secrets, comparer.clone());
        let prepares = AbortOnDropHandle::new(tokio::spawn(comparer.clone().prepare_all(view.clone())));
        Self {
            view,
            channels,
            metrics,
            gate,
            shutdown,
            classifier: Classifier::new(expensive.clone(), classifiers, comparer),
            expensive,
            wait_queue: [limits.wait_queue_expert_max, limits.wait_queue_max / 2].map(of_wait_queue),
            answers: Permits::new(limits.answers_max, limits.answers_max / 2),
            large_bodies_rate: Throttle::new(limits.large_bodies_rate),
            body_memory: BodyMemory::new(limits.large_bodies_bytes),
            large_bodies: Permits::new(limits.large_bodies_max, limits.large_bodies_max / 2),
            draws: Draws::default(),
            egress: EgressChannels(fleet.egress_channels()),
            quotas: Quotas::default(),
            data_policy,
            cascades: Cascades::default(),
            shadows: Shadows::default(),
            stores,
            _prepares: prepares,
            limits,
        }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The answer, from its first token on.
    pub(crate) async fn generate(self: &Arc<Self>, request: &GenerateRequest, call: &Call) -> Result<Answer, Refusal> {
        self.answer(request, call, None).await
    }

    /// Another answer of the worker at this URL, which has the prompt's keys and values; of another one if it has left or is full.
    pub(crate) async fn generate_beside(
        self: &Arc<Self>,
        request: &GenerateRequest,
        call: &Call,
        worker: &str,
    ) -> Result<Answer, Refusal> {
        self.answer(request, call, Some(worker)).await
    }

    async fn answer(
        self: &Arc<Self>,
        request: &GenerateRequest,
        call: &Call,
        beside: Option<&str>,
    ) -> Result<Answer, Refusal> {
        let mut meter = Meter::new(&self.metrics, call.api, call.caller.name());
        let deadline = self.deadline(call);
        let capped = capped(request, &call.caller);
        let request = capped.as_ref().unwrap_or(request);
        let call = &Call { caller: call.caller.clone(), retrieval: Retrieval::wanted(), ..*call };
        let answer = async {
            self.enter(request, &call.caller, beside.is_some(), &mut meter)?;
            let permit = self.admit(request, &call.caller)?;
            let policy = self.policy(&self.view(), request, &call.caller)?;
            let bounds = Bounds::from(policy);
            let reply = match bounds {
                Bounds::Within(only) => self.reply(request, call, beside, deadline, only).boxed(),
                Bounds::Beyond(may_leave) => self.reply(request, call, beside, deadline, may_leave).boxed(),
            };
            match timeout_at(deadline, reply).await {
                Ok(reply) => Ok((reply?, permit, bounds)),
                Err(_) => Err(Refusal::DeadlineExceeded),
            }
        };
        match answer.await {
            Ok((reply, permit, bounds)) => {
                meter.first_token();
                Ok(match reply {
                    Given::Answer(begun) => {
                        let probabilities = request.logprobs.is_some();
                        // Of several answers to one prompt the first is enough.
                        let tap = if beside.is_none() { Tap::new(self, request, call, bounds) } else { None };
                        let answer = begun.into_answer(meter, deadline, &self.limits, (permit, probabilities), tap);
                        Answer { started: Started { retrieval: call.retrieval.told(), ..answer.started }, ..answer }
                    }
                    Given::Message { message, decision } => {
                        let (request_id, decision) = (request.request_id.clone(), Some(*decision));
                        let started = Started { request_id, decision, ..Started::default() };
                        let events = Events::said(message, meter, deadline);
                        Answer { started, events, reader_idle: self.limits.reader_idle, permit }
                    }
                })
            }
            Err(refusal) => {
                meter.failed(refusal.code());
                tracing::debug!(model = request.model, caller = ?call.caller.name(), %refusal, "refused");
                Err(refusal)
            }
        }
    }

    /// The reply of the target that is decided for, or of a larger one if its route has a cascade, or of several if it has an ensemble.
    async fn reply<B: Boundary>(
        &self,
        request: &GenerateRequest,
        call: &Call,
        beside: Option<&str>,
        deadline: Instant,
        boundary: B,
    ) -> Result<Given, Refusal> {
        let wanted = Wanted { beside, several: true, ..Wanted::default() };
        let view = self.view();
        let route = view.index.route(&request.model).map(Arc::as_ref);
        let cascade = route.and_then(|route| Some((route, route.cascade()?)));
        let judged = cascade.map(|_| with_probabilities(request));
        let answer = match self.tried(judged.as_ref().unwrap_or(request), call, wanted, deadline, boundary).await? {
            Reply::Of(answer) => answer,
            Reply::Message { message, decision } => return Ok(Given::Message { message, decision }),
            Reply::Several(together) => {
                let answer = self.together(together, request, call, deadline, boundary).await?;
                return Ok(Given::Answer(Box::new(answer)));
            }
        };
        let (Some(cascade), Some(judged)) = (cascade, &judged) else { return Ok(Given::Answer(Box::new(answer))) };
        let requests = Requests { judged, last: request };
        let answer = self.escalated(cascade, answer, requests, call, deadline, boundary).await?;
        Ok(Given::Answer(Box::new(answer)))
    }

    /// The answer of the first worker that begins one.
    pub(crate) async fn tried<B: Boundary>(
        &self,
        request: &GenerateRequest,
        call: &Call,
        wanted: Wanted<'_>,
        deadline: Instant,
        boundary: B,
    ) -> Result<Reply<StartedAnswer>, Refusal> {
        let send = |upstream: Upstream<B>, expert: String, decision| {
            async move {
                match upstream {
                    Upstream::Worker(WorkerRef(worker)) => {
                        self.attempt(&worker, &expert, decision, request, call, deadline).await
                    }
                    Upstream::Egress(permission) => {
                        self.leave(permission.into(), &expert, decision, request, call, deadline).await
                    }
                }
            }
            .boxed()
        };
        self.try_workers(request, call, wanted, &send, boundary).await
    }

    /// What may leave the swarm for a request.
    fn policy(&self, view: &View, request: &GenerateRequest, caller: &Caller) -> Result<DataPolicy, Refusal> {
        policy::of_request(view, request, caller, self.data_policy)
    }

    /// When the request has to be answered.
    pub(crate) fn deadline(&self, call: &Call) -> Instant {
        let latest = Instant::now() + self.limits.request;
        call.deadline.map_or(latest, |deadline| deadline.min(latest))
    }

    /// The routing decision as of now.
    pub(crate) async fn explain(&self, request: &mut GenerateRequest, caller: &Caller) -> Result<Decision, Refusal> {
        request.explain = true;
        let _permit = self.admit(request, caller)?;
        let view = self.view();
        let mut outcomes = None;
        resolve(&view, &request.model, caller)?;
        self.classifier.classify(&view, request, caller, &mut outcomes).await;
        let policy = self.policy(&view, request, caller)?;
        let decided = match resolve(&view, &request.model, caller)?.decide(request, outcomes.as_ref(), policy) {
            Verdict::Ask(decided) if decided.several => return Ok(self.agreement(decision(decided, None))),
            Verdict::Ask(decided) => decided,
            Verdict::Say { decision, .. } => return Ok(self.agreement(*decision)),
            Verdict::Refuse(refusal) => return Err(refusal),
        };
        let decision = match decided.eligible(&ExcludedWorkers::default()).rank(self.draws.draw()) {
            Ok(chosen) => decision(chosen.decided, Some(chosen.worker)),
            Err(unserved) => {
                let mut decision = decision(unserved.decided, None);
                decision.reason = format!("{}; not now: {}", decision.reason, unserved.why);
                decision
            }
        };
        Ok(self.agreement(decision))
    }

    /// What `send` gets from the first worker that answers.
    pub(crate) async fn try_workers<'r, T, B: Boundary>(
        &'r self,
        request: &GenerateRequest,
        call: &Call,
        wanted: Wanted<'_>,
        send: &Send<'r, T, B>,
        boundary: B,
    ) -> Result<Reply<T>, Refusal> {
        let mut view = self.view.clone();
        let mut outcomes = None;
        let mut attempts = Attempts::default();
        let mut ticket = None;
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            if now.index.swarm.generation > 0 && wanted.to.is_none() {
                // No rule runs for a caller who may not name its route.
                resolve(&now, &request.model, &call.caller)?;
                self.classifier.classify(&now, request, &call.caller, &mut outcomes).await;
            }
            let plan =
                self.plan(&now, request, &call.caller, outcomes.as_ref(), (&attempts.tried, wanted, boundary))?;
            if matches!(plan, Plan::Send { .. }) {
                self.retrieve(&now, request, call).await?;
            }
            match plan {
                Plan::Say { message, decision } => return Ok(Reply::Message { message, decision }),
                Plan::Several(decision) => return Ok(Reply::Several(Together { view: now, decision })),
                Plan::Wait { name, why } => {
                    if let Some(refusal) = attempts.no_room() {
                        return Err(refusal);
                    }
                    // There is an answer of another target.
                    if wanted.to.is_some() {
                        return Err(Refusal::NotResident { name, why: why.for_callers(), retry_after: RETRY_AFTER });
                    }
                    let ticket = match &mut ticket {
                        Some(ticket) => ticket,
                        None => ticket.insert(self.enter_wait_queue(&name, &call.caller)?),
                    };
                    self.wait(&mut view, ticket, name, why).await?;
                }
                Plan::Send { peer, upstream, expert, decision } => match send(upstream, expert, *decision).await {
                    Ok(begun) => return Ok(Reply::Of(begun)),
                    Err(status) => {
                        // Its words may be the caller's, where they came from outside.
                        let code = status.code();
                        attempts.failed(&peer, status, &request.model, &self.limits)?;
                        tracing::info!(worker = %peer.url, ?code, "trying another worker");
                        self.metrics.retry();
                    }
                },
            }
        }
    }

    /// Resolved, decided, eligible, ranked: everything that needs no waiting.
    fn plan<B: Boundary>(
        &self,
        view: &View,
        request: &GenerateRequest,
        caller: &Caller,
        outcomes: Option<&Outcomes>,
        (tried, wanted, boundary): (&ExcludedWorkers, Wanted<'_>, B),
    ) -> Result<Plan<B>, Refusal> {
        if view.index.swarm.generation == 0 {
            return Ok(Plan::Wait { name: request.model.clone(), why: Absence::NoSwarm });
        }
        let shown = |decision| if request.explain { decision } else { brief(decision) };
        // Anew for each attempt: the route may have become stricter.
        let policy = self.policy(view, request, caller)?.min(boundary.limit());
        let verdict = match wanted.to {
            Some(to) => Verdict::Ask(Decided::asked(view, &request.model, to, policy)),
            None => resolve(view, &request.model, caller)?.decide(request, outcomes, policy),
        };
        let decided = match verdict {
            Verdict::Ask(decided) if decided.several && wanted.several => {
                return Ok(Plan::Several(Box::new(shown(decision(decided, None)))));
            }
            Verdict::Ask(decided) => decided,
            Verdict::Say { message, decision } => {
                return Ok(Plan::Say { message, decision: Box::new(shown(*decision)) });
            }
            Verdict::Refuse(refusal) => return Err(refusal),
        };
        Ok(match decided.eligible(tried).beside(wanted.beside).rank(self.draws.draw()) {
            Ok(Chosen { decided, worker }) => {
                let (expert, external) = (decided.expert.name.clone(), decided.expert.is_external());
                let peer = Arc::clone(worker);
                let decision = decision(decided, Some(worker));
                let upstream = if external {
                    let errand = Errand { route: decision.route.clone(), reason: decision.reason.clone(), policy };
                    let permission = boundary.permit(Egress(Arc::clone(&peer)), errand);
                    Upstream::Egress(permission.ok_or_else(|| Refusal::Policy { name: expert.clone(), policy })?)
                } else {
                    Upstream::Worker(WorkerRef(Arc::clone(&peer)))
                };
                Plan::Send { peer, upstream, expert, decision: Box::new(shown(decision)) }
            }
            Err(unserved) => match (unserved.decided.expert.name, unserved.why) {
                // Waiting does not help.
                (_, Absence::NotLoadable(refused)) => return Err(Refusal::NotLoadable(refused)),
                (_, Absence::Policy { name, policy }) => return Err(Refusal::Policy { name, policy }),
                (name, why) => Plan::Wait { name, why },
            },
        })
    }

    fn enter_wait_queue(&self, expert: &str, caller: &Caller) -> Result<WaitTicket, Refusal> {
        let [by_expert, by_caller] = &self.wait_queue;
        let full = |full: Full| Refusal::TooManyWaiting { name: expert.to_owned(), waiting: full.limit() };
        let permits =
            [by_expert.take(Some(&Arc::from(expert))).map_err(full)?, by_caller.take(caller.name()).map_err(full)?];
        Ok(WaitTicket {
            until: Instant::now() + self.limits.wait_max,
            _permits: permits,
            _counted: self.metrics.queued(),
        })
    }

    async fn wait(
        &self,
        view: &mut watch::Receiver<Arc<View>>,
        ticket: &WaitTicket,
        name: String,
        why: Absence,
    ) -> Result<(), Refusal> {
        tokio::select! {
            changed = view.changed() => changed.map_err(|_| Refusal::ShuttingDown),
            () = self.shutdown.cancelled() => Err(Refusal::ShuttingDown),
            () = sleep_until(ticket.until) => {
                tracing::info!(name, %why, "a request waited in vain");
                Err(Refusal::NotResident { name, why: why.for_callers(), retry_after: RETRY_AFTER })
            }
        }
    }

    /// One attempt on one worker, up to the first event after Started.
    async fn attempt(
        &self,
        worker: &Arc<Worker>,
        expert: &str,
        decision: Decision,
        request: &GenerateRequest,
        call: &Call,
        deadline: Instant,
    ) -> Result<StartedAnswer, Status> {
        let open = OpenStream::new(&worker.open);
        let channel = self.channel(worker)?;
        let request = call.retrieval.apply(request);
        let forwarded = forwarded(for_worker(&request, expert, &call.caller), call, deadline);
        self.heard(worker, self.begin(worker, decision, channel, forwarded, open)).await
    }

    /// What `answer` gives, unless the worker sends nothing for too long.
    pub(crate) async fn heard<T>(
        &self,
        worker: &Worker,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let idle = self.limits.worker_idle;
        timeout(idle, answer).await.unwrap_or_else(|_| {
            tracing::info!(worker = %worker.url, "a worker has sent nothing");
            Err(Status::deadline_exceeded(Refusal::Silent { idle }.to_string()))
        })
    }

    /// The connection to a worker.
    pub(crate) fn channel(&self, worker: &Worker) -> Result<Channel, Status> {
        channel(&self.channels, worker)
    }

    async fn begin(
        &self,
        worker: &Arc<Worker>,
        decision: Decision,
        channel: Channel,
        forwarded: tonic::Request<GenerateRequest>,
        open: OpenStream,
    ) -> Result<StartedAnswer, Status> {
        let mut client = GenerationClient::new(channel).max_decoding_message_size(self.limits.body_bytes_max);
        let stream = client.generate(forwarded).await.map_err(attributed)?.into_inner();
        StartedAnswer::begin(stream, decision, open, worker).await
    }
}

/// The place of a request that waits for its expert. Its deadline is set once, however often the view changes.
struct WaitTicket {
    until: Instant,
    _permits: [Permit; 2],
    _counted: Queued,
}

/// A request to a worker. Only a deadline of the caller's own is the worker's concern; ours ends the answer.
pub(crate) fn forwarded<T>(request: T, call: &Call, deadline: Instant) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    if let Some(deadline) = call.deadline.map(|own| own.min(deadline)) {
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    request
}

/// The same request under the expert's own name, with what the caller's token says of it and without what only a router
/// reads.
pub(crate) fn for_worker(request: &GenerateRequest, expert: &str, caller: &Caller) -> GenerateRequest {
    GenerateRequest {
        model: expert.to_owned(),
        input: request.input.clone(),
        sampling: request.sampling.clone(),
        max_tokens: request.max_tokens,
        stop: request.stop.clone(),
        stop_token_ids: request.stop_token_ids.clone(),
        ignore_eos: request.ignore_eos,
        priority: request.priority.max(caller.priority_min()),
        tenant: caller.tenant().to_owned(),
        tenant_weight: caller.weight(),
        logprobs: request.logprobs,
        explain: false,
        request_id: request.request_id.clone(),
        metadata: std::collections::HashMap::new(),
        parse_special_tokens: request.parse_special_tokens,
        tools: request.tools.clone(),
        tool_choice: request.tool_choice.clone(),
        parallel_tool_calls: request.parallel_tool_calls,
        chat_template_kwargs: request.chat_template_kwargs.clone(),
        add_special_tokens: request.add_special_tokens,
        suffix: request.suffix.clone(),
        add_generation_prompt: request.add_generation_prompt,
        continue_final_message: request.continue_final_message,
        echo: request.echo,
    }
}

/// A decision for callers that did not ask for an explanation: rules and addresses of workers do not concern them.
fn brief(decision: Decision) -> Decision {
    Decision { reason: String::new(), worker: String::new(), ..decision }
}

fn decision(decided: Decided<'_>, worker: Option<&Arc<Worker>>) -> Decision {
    let digest = worker.and_then(|worker| worker.resident(&decided.expert).ok()).unwrap_or(&decided.expert.digest);
    Decision {
        requested: decided.requested.to_owned(),
        route: decided.route.to_owned(),
        chosen: (!decided.several).then(|| decided.expert.to_proto(digest)),
        reason: decided.reason,
        worker: worker.map_or_else(String::new, |worker| worker.url.to_string()),
        candidates: decided.candidates,
        classified: decided.shown.classified.map(|classified| *classified),
        similarity: decided.shown.similarity.map(|similarity| *similarity),
    }
}
