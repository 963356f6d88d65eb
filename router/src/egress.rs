//! Requests that leave the swarm: the only module that speaks to the egress, and it takes a permission to do so.

use slm_proto::v1::{Decision, ExternalRequest, GenerateRequest, egress_client::EgressClient};
use tokio::time::Instant;
use tonic::{Status, transport::Channel};

use crate::{
    boundary::Permitted,
    dispatch::{Call, Dispatcher, for_worker, forwarded},
    events::{OpenStream, attributed},
    fleet::{Channels, channel},
    started::StartedAnswer,
};

/// Connections to the egress.
#[derive(Clone, Debug)]
pub(crate) struct EgressChannels(pub(crate) Channels);

impl EgressChannels {
    fn to(&self, permitted: &Permitted) -> Result<Channel, Status> {
        channel(&self.0, permitted.egress())
    }
}

impl Dispatcher {
    /// One attempt of a request on a model outside, up to the first event after Started.
    pub(crate) async fn leave(
        &self,
        permitted: Permitted,
        expert: &str,
        decision: Decision,
        request: &GenerateRequest,
        call: &Call,
        deadline: Instant,
    ) -> Result<StartedAnswer, Status> {
        let egress = permitted.egress();
        let open = OpenStream::new(&egress.open);
        let mut client =
            EgressClient::new(self.egress.to(&permitted)?).max_decoding_message_size(self.limits.body_bytes_max);
        let request = &*call.retrieval.apply(request);
        let external = ExternalRequest {
            request: Some(GenerateRequest { tenant: String::new(), ..for_worker(request, expert, &call.caller) }),
            redact: permitted.redact(),
            caller: call.caller.name().map_or_else(String::new, |name| name.to_string()),
            route: permitted.errand().route.clone(),
            reason: permitted.errand().reason.clone(),
        };
        let answer = async {
            let stream = client.generate(forwarded(external, call, deadline)).await.map_err(attributed)?.into_inner();
            StartedAnswer::begin(stream, decision, open, egress).await
        };
        self.heard(egress, answer).await
    }
}
