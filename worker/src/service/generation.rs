//! `slm.v1.Generation`: validates, tokenises and submits a request, and streams its answer.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use slm_listen::deadline::Deadline;
use slm_proto::v1::{self, generate_response::Event, generation_server::Generation};
use tonic::{Request, Response, Status};

use super::{Shared, answer::Answer, input, plan::Plan, prompt::Prompt, status};
use crate::{
    adapters::AdapterLease,
    admit::admit,
    constrain::{ConstraintError, Prototype, Rule},
    engine::{Job, StepFailure},
    permits::Permit,
    text::TextStream,
};

/// Bound on the time in which a constraint is compiled.
const COMPILE_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Generate(pub(crate) Shared);

type Responses = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Generation for Generate {
    type GenerateStream = Responses;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Responses>, Status> {
        let (started, answer) = self.begin(request).await?;
        let first = v1::GenerateResponse { event: Some(Event::Started(started)) };
        let rest = self.0.answers.open(answer);
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(rest))))
    }

    async fn complete(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::Completion>, Status> {
        let (started, mut answer) = self.begin(request).await?;
        let mut completion = v1::Completion { started: Some(started), ..Default::default() };
        while let Some(response) = answer.next().await {
            match response?.event {
                Some(Event::Delta(delta)) => completion.add(delta),
                Some(Event::Finished(finished)) => completion.finish(finished),
                Some(Event::Started(_)) | None => {}
            }
        }
        Ok(Response::new(completion))
    }
}

/// A request whose prompt is read and whose constraint is compiled.
struct Ready {
    prompt: Vec<u32>,
    constraint: Option<Arc<Prototype>>,
    /// Ids that end the answer, besides those of model and request.
    ends: Vec<u32>,
    adapter: Option<Arc<AdapterLease>>,
    permit: Arc<Permit>,
    deadline: Option<Instant>,
    /// Time of the request.
    begun: Instant,
}

impl Generate {
    async fn begin(&self, request: Request<v1::GenerateRequest>) -> Result<(v1::Started, Answer), Status> {
        let begun = Instant::now();
        if *self.0.draining.borrow() {
            return Err(status::draining());
        }
        let deadline = Deadline::of(&request).map(Into::into);
        let mut request = request.into_inner();
        let tenant = input::tenant(&request.tenant)?;
        // Fixes the version: later loads of this name affect only later requests.
        let adapter = self.0.expert(&request.model)?;
        let generator = self.0.generator()?;
        // Before any work, so that a request without a place costs nothing.
        let permit = generator.engine.enter(&tenant, request.priority)?;
        let (prompt, plan) = Prompt::take(&mut request, adapter.clone(), generator, &self.0.model.name)?;
        let asked = request.sampling.as_mut().and_then(|sampling| sampling.constraint.take());
        let (ends, text) = (prompt.ends(generator), if request.echo { prompt.text() } else { None });
        let (prompt, ()) = within(deadline, prompt.read(&self.0, &tenant, |_, _, _| Ok(()))).await?;
        let constraint = match asked {
            None => within(deadline, self.calls(plan.as_ref(), &prompt, &tenant)).await?,
            Some(asked) => Some(within(deadline, self.constraint(Rule::new(asked)?, &tenant)).await?),
        };
        let expert = self.0.describe(adapter.as_deref());
        let adapter = match adapter {
            None => None,
            Some(version) => Some(within(deadline, self.0.lease(version)).await?),
        };
        if permit.is_withdrawn() {
            return Err(StepFailure::Displaced.into());
        }
        let reader = plan.zip(generator.token_bytes.as_ref()).and_then(|(plan, bytes)| plan.reader(&prompt, bytes));
        let of_ids = || generator.token_bytes.as_ref().map(|bytes| bytes.text(&prompt));
        let echo = if request.echo { text.or_else(of_ids) } else { None };
        let ready = Ready { prompt, constraint, ends, adapter, permit, deadline, begun };
        let answer = self.submit(&request, ready)?.read_by(reader).after(echo);
        let prompt_tokens = answer.prompt_tokens();
        let started = v1::Started {
            request_id: request.request_id,
            expert: Some(expert),
            prompt_tokens,
            ..v1::Started::default()
        };
        Ok((started, answer))
    }

    fn submit(&self, request: &v1::GenerateRequest, ready: Ready) -> Result<Answer, Status> {
        let Ready { prompt, constraint, ends, adapter, permit, deadline, begun } = ready;
        let model = self.0.generator()?;
        let own_ends = adapter.as_ref().map(|lease| lease.info.chat.eos_token_ids.as_slice()).unwrap_or_default();
        let mut admitted = admit(request, prompt.len(), own_ends, &model.limits)?;
        admitted.stop_ids.extend(ends);
        let prompt_tokens = prompt.len() as u32;
        let name = &self.0.model.name;
        let expert = adapter.as_ref().map_or(name, |lease| &lease.info.name);
        let meter = self.0.metrics.answer(name, expert, begun);
        let job = Job {
            prompt,
            adapter,
            sampling: admitted.sampling,
            guide: constraint.map(|constraint| constraint.guide(&admitted.stop_ids)),
            tokens_max: admitted.tokens_max,
            stop_ids: admitted.stop_ids,
            priority: request.priority,
            weight: request.tenant_weight.max(1),
            deadline,
        };
        let events = model.engine.submit(permit.clone(), job)?;
        let bytes = model.token_bytes.clone();
        let text = bytes.clone().map(|bytes| TextStream::new(bytes, admitted.stop));
        Ok(Answer::new(events, permit, text, bytes, prompt_tokens, meter))
    }

    /// The compiled rule of an answer whose calls are guaranteed.
    async fn calls(
        &self,
        plan: Option<&Plan>,
        prompt: &[u32],
        tenant: &Arc<str>,
    ) -> Result<Option<Arc<Prototype>>, Status> {
        let Some((plan, bytes)) = plan.filter(|plan| plan.has_rule()).zip(self.0.generator()?.token_bytes.clone())
        else {
            return Ok(None);
        };
        let (plan, prompt) = (plan.clone(), prompt.to_vec());
        let rule = self.0.text.run(tenant, move || plan.rule(&prompt, &bytes)).await;
        match rule.map_err(|error| Status::internal(error.to_string()))? {
            None => Ok(None),
            Some(rule) => self.constraint(rule?, tenant).await.map(Some),
        }
    }

    /// The compiled constraint: of the cache, or compiled on the threads for long prompts.
    async fn constraint(&self, rule: Rule, tenant: &Arc<str>) -> Result<Arc<Prototype>, Status> {
        let model = &self.0.model;
        let Some(constraints) = self.0.generator()?.constraints.clone() else {
            return Err(ConstraintError::NoTokenizer { field: rule.field(), model: model.name.clone() }.into());
        };
        if let Some(known) = constraints.known(&rule) {
            return Ok(known?);
        }
        let slow = ConstraintError::Slow { field: rule.field(), limit: COMPILE_MAX };
        let compiling = self.0.text.run(tenant, move || constraints.compile(&rule));
        let compiled = tokio::time::timeout(COMPILE_MAX, compiling).await.map_err(|_| slow)?;
        Ok(compiled.map_err(|error| Status::internal(error.to_string()))??)
    }
}

/// The result of `work`, if it arrives before the deadline.
pub(super) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => work.await,
        Some(deadline) => {
            let done = tokio::time::timeout_at(deadline.into(), work).await;
            done.unwrap_or_else(|_| Err(StepFailure::Deadline.into()))
        }
    }
}
