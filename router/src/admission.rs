//! Admission of a request: what is checked and taken before any work for it.

use std::{sync::Arc, time::Instant};

use slm_proto::v1::GenerateRequest;

use crate::{
    access::table::Caller, dispatch::Dispatcher, metrics::Meter, permits::Permit, quota::estimate, refusal::Refusal,
};

/// The request with the longest answer that its token allows, if it asks for none.
pub(crate) fn capped(request: &GenerateRequest, caller: &Caller) -> Option<GenerateRequest> {
    let most = caller.limits().max_tokens(&request.model).filter(|_| request.max_tokens.is_none())?;
    Some(GenerateRequest { max_tokens: Some(most), ..request.clone() })
}

impl Dispatcher {
    /// Takes the request's place in the limits of its token. A `further` answer is no request of its own.
    pub(crate) fn enter(
        &self,
        request: &GenerateRequest,
        caller: &Caller,
        further: bool,
        meter: &mut Meter,
    ) -> Result<(), Refusal> {
        let (name, limits) = (&request.model, caller.limits());
        if let (Some(token), Some(asked), Some(most)) = (caller.name(), request.max_tokens, limits.max_tokens(name))
            && asked > most
        {
            return Err(Refusal::MaxTokens { asked, most, token: Arc::clone(token), name: name.clone() });
        }
        let pass = self
            .quotas
            .enter(caller, name, estimate(request), further, Instant::now())
            .map_err(Refusal::RateLimited)?;
        meter.limited_by(pass);
        Ok(())
    }

    /// Checks before any work for a request.
    pub(crate) fn admit(&self, request: &GenerateRequest, caller: &Caller) -> Result<Permit, Refusal> {
        let (entries, limits) = (request.metadata.len(), self.limits.metadata_max);
        let bytes = request.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if entries > limits.0 || bytes > limits.1 {
            return Err(Refusal::Metadata { entries, bytes, limits });
        }
        self.answers.take(caller.name()).map_err(Refusal::TooManyOpen)
    }
}
