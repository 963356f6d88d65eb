//! Limits of a token: requests and tokens a minute, and requests at a time; in all, and for some models.
//!
//! A request is let in if every limit that concerns it has room, and takes its place in all of them at once. Its tokens are
//! estimated when it comes, from the bytes of its prompt and the longest answer that it asks for, and set right when it ends; a
//! request that fails gives them back. Exact within a router: each router counts its own.
//!
//! - [`bucket`]: what is left of a minute. Pure;
//! - [`limits`]: what the list of tokens says.

mod bucket;
mod limits;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use slm_proto::v1::{GenerateRequest, generate_request::Input};

use self::bucket::Bucket;
pub(crate) use self::limits::{CallerLimits, ModelLimits, RateLimits};
use crate::access::table::Caller;

/// Bytes of a token, for the estimate of a prompt's tokens.
const TOKEN_BYTES: usize = 4;

/// What all tokens have used of their limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas(Arc<Mutex<HashMap<Arc<str>, Account>>>);

/// What one token has used: in all, then by the limits for models, in their order.
#[derive(Debug, Default)]
struct Account(Vec<Used>);

#[derive(Debug)]
struct Used {
    requests: Bucket,
    tokens: Bucket,
    open: u32,
}

/// Which limit has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Requests,
    Tokens,
    Concurrent,
}

/// A request beyond a limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exceeded {
    /// Name of the token.
    pub(crate) token: Arc<str>,
    /// Models that the limit is for, as the list says it; `None` for all.
    pub(crate) models: Option<Arc<str>>,
    pub(crate) kind: Kind,
    pub(crate) limit: u32,
    /// Time until there is room. One second, if that is when another request ends.
    pub(crate) retry_after: Duration,
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Remaining {
    pub(crate) limit: u32,
    pub(crate) left: u32,
    /// Time until all of it is there again.
    pub(crate) reset: Duration,
}

/// What is left of a token's limits in all: what callers see in headers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    pub(crate) requests: Option<Remaining>,
    pub(crate) tokens: Option<Remaining>,
}

/// A request's place in its token's limits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    quotas: Quotas,
    token: Arc<str>,
    limits: Arc<CallerLimits>,
    /// The limits that concern it, by their number in the account.
    scopes: Vec<usize>,
    /// Tokens that were taken for it; what it used once that is known.
    tokens: f64,
    used: f64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, limit, .. } = self;
        match self.kind {
            Kind::Requests => write!(f, "the token `{token}` may make {limit} requests a minute")?,
            Kind::Tokens => {
                write!(f, "the token `{token}` may use {limit} tokens a minute, prompts and answers together,")?
            }
            Kind::Concurrent => write!(f, "the token `{token}` may have {limit} requests open at a time")?,
        }
        if let Some(models) = &self.models {
            write!(f, " to `{models}`")?;
        }
        write!(f, "; try again in {} s", self.retry_after.as_secs_f64().ceil().max(1.0))
    }
}

impl Quotas {
    /// A place for a request of `caller` to the model, adapter or route `name`. `None`: no limit concerns it. A `further` answer
    /// to a request that is in counts no request of its own.
    ///
    /// # Errors
    /// The first limit without room; nothing is taken then.
    pub(crate) fn enter(
        &self,
        caller: &Caller,
        name: &str,
        tokens: u64,
        further: bool,
        now: Instant,
    ) -> Result<Option<Pass>, Box<Exceeded>> {
        let (Some(token), limits) = (caller.name(), caller.limits()) else { return Ok(None) };
        let scopes: Vec<usize> = limits.concerning(name).collect();
        if scopes.is_empty() {
            return Ok(None);
        }
        let (requests, tokens) = (if further { 0.0 } else { 1.0 }, tokens as f64);
        let mut accounts = self.lock();
        let account = accounts.entry(Arc::clone(token)).or_default();
        account.fit(limits, now);
        let lacking = scopes.iter().find_map(|&scope| {
            let (limit, used) = (limits.get(scope)?, account.0.get(scope)?);
            let (kind, most, wait) = used.lacks(limit, requests, tokens, now)?;
            Some((scope, kind, most, wait))
        });
        if let Some((scope, kind, limit, retry_after)) = lacking {
            let (token, models) = (Arc::clone(token), limits.models(scope));
            return Err(Box::new(Exceeded { token, models, kind, limit, retry_after }));
        }
        for &scope in &scopes {
            if let Some((limit, used)) = limits.get(scope).zip(account.0.get_mut(scope)) {
                used.take(limit, requests, tokens, now);
                used.open += 1;
            }
        }
        let (token, limits) = (Arc::clone(token), Arc::clone(limits));
        Ok(Some(Pass { quotas: self.clone(), token, limits, scopes, tokens, used: 0.0 }))
    }

    /// What is left of the limits of `caller` on all its requests.
    pub(crate) fn standing(&self, caller: &Caller, now: Instant) -> Standing {
        let limits = caller.limits();
        let Some(token) = caller.name().filter(|_| limits.all != RateLimits::default()) else {
            return Standing::default();
        };
        let mut accounts = self.lock();
        let account = accounts.entry(Arc::clone(token)).or_default();
        account.fit(limits, now);
        account.standing(limits, now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Room for all of `limits`; what is there already stays.
    fn fit(&mut self, limits: &CallerLimits, now: Instant) {
        for scope in self.0.len()..limits.len() {
            let limit = limits.get(scope).copied().unwrap_or_default();
            let full = |per_minute: Option<u32>| Bucket::full(per_minute.unwrap_or(0), now);
            let (requests, tokens) = (full(limit.requests_per_minute), full(limit.tokens_per_minute));
            self.0.push(Used { requests, tokens, open: 0 });
        }
    }

    fn standing(&self, limits: &CallerLimits, now: Instant) -> Standing {
        let Some((limit, used)) = limits.get(0).zip(self.0.first()) else { return Standing::default() };
        let remaining = |bucket: &Bucket, per_minute: Option<u32>| {
            let limit = per_minute?;
            // A float that is too large or below zero becomes the nearest number.
            let left = bucket.left(limit, now) as u32;
            Some(Remaining { limit, left, reset: bucket.wait(f64::from(limit), limit, now) })
        };
        Standing {
            requests: remaining(&used.requests, limit.requests_per_minute),
            tokens: remaining(&used.tokens, limit.tokens_per_minute),
        }
    }
}

impl Used {
    /// The limit that has no room, and the time until it has.
    fn lacks(&self, limit: &RateLimits, requests: f64, tokens: f64, now: Instant) -> Option<(Kind, u32, Duration)> {
        let concurrent = limit.concurrent_requests.filter(|most| self.open >= *most);
        if let Some(most) = concurrent {
            return Some((Kind::Concurrent, most, Duration::from_secs(1)));
        }
        let rates = [
            (Kind::Requests, limit.requests_per_minute, &self.requests, requests),
            (Kind::Tokens, limit.tokens_per_minute, &self.tokens, tokens.max(1.0)),
        ];
        rates.into_iter().find_map(|(kind, per_minute, bucket, units)| {
            let per_minute = per_minute?;
            let wait = bucket.wait(units, per_minute, now);
            (!wait.is_zero()).then_some((kind, per_minute, wait))
        })
    }

    fn take(&mut self, limit: &RateLimits, requests: f64, tokens: f64, now: Instant) {
        if let Some(per_minute) = limit.requests_per_minute {
            self.requests.take(requests, per_minute, now);
        }
        if let Some(per_minute) = limit.tokens_per_minute {
            self.tokens.take(tokens, per_minute, now);
        }
    }
}

impl Pass {
    /// The request used so many tokens, prompt and answer.
    pub(crate) fn used(&mut self, tokens: u64) {
        self.used = tokens as f64;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut accounts = self.quotas.lock();
        let Some(account) = accounts.get_mut(&self.token) else { return };
        for &scope in &self.scopes {
            let Some((limit, used)) = self.limits.get(scope).zip(account.0.get_mut(scope)) else { continue };
            used.open = used.open.saturating_sub(1);
            used.take(limit, 0.0, self.used - self.tokens, now);
        }
    }
}

/// Tokens that `request` may take, for want of a tokenizer.
pub(crate) fn estimate(request: &GenerateRequest) -> u64 {
    let bytes = match &request.input {
        Some(Input::Prompt(text)) => text.len() + request.suffix.len(),
        Some(Input::Messages(messages)) => messages.messages.iter().map(|message| message.content.len()).sum(),
        Some(Input::TokenIds(ids)) => ids.ids.len() * TOKEN_BYTES,
        None => 0,
    };
    (bytes / TOKEN_BYTES) as u64 + u64::from(request.max_tokens.unwrap_or(0))
}

#[cfg(test)]
mod tests;
