//! Dispatch of a request whose answer is one message: as that of generation (`dispatch`), without a stream.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use slm_proto::v1::GenerateRequest;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::{
    boundary::{LocalOnly, Upstream},
    dispatch::{Call, Dispatcher, Reply, Wanted},
    metrics::Meter,
    refusal::Refusal,
    view::Worker,
};

/// Sends the request to a worker, under the name of an expert that it has, until the deadline.
pub(crate) type SendOnce<'r, T> = dyn Fn(Arc<Worker>, String, Instant) -> BoxFuture<'r, Result<T, Status>> + Sync + 'r;

impl Dispatcher {
    /// The answer of the first worker that gives one. `subject` is what rules and places are decided by; `prompt_tokens` counts
    /// those of an answer.
    pub(crate) async fn once<'r, T>(
        &'r self,
        subject: &GenerateRequest,
        call: &Call,
        send: &SendOnce<'r, T>,
        prompt_tokens: impl Fn(&T) -> u32,
    ) -> Result<T, Refusal> {
        let mut meter = Meter::new(&self.metrics, call.api, call.caller.name());
        let deadline = self.deadline(call);
        let answer = async {
            self.enter(subject, &call.caller, false, &mut meter)?;
            let _permit = self.admit(subject, &call.caller)?;
            // Vectors, scores, labels and tokens are those of models of the swarm.
            let send = |upstream: Upstream<LocalOnly>, expert, _| send(upstream.worker(), expert, deadline).boxed();
            match timeout_at(deadline, self.try_workers(subject, call, Wanted::default(), &send, LocalOnly)).await {
                // Words are no vector, score or token.
                Ok(reply) => reply.and_then(|reply| match reply {
                    Reply::Of(answer) => Ok(answer),
                    Reply::Message { message, .. } => Err(Refusal::OutOfScope { message }),
                    Reply::Several(_) => Err(Refusal::OutOfScope { message: "only answers are combined".to_owned() }),
                }),
                Err(_) => Err(Refusal::DeadlineExceeded),
            }
        };
        match answer.await {
            Ok(response) => {
                meter.finished(prompt_tokens(&response), 0);
                Ok(response)
            }
            Err(refusal) => {
                meter.failed(refusal.code());
                tracing::debug!(model = subject.model, caller = ?call.caller.name(), %refusal, "refused");
                Err(refusal)
            }
        }
    }
}
