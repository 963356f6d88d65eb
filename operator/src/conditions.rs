//! Conditions: the one place that sets them, so that a transition time is that of a transition.

use std::borrow::Cow;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use slm_crds::status::Condition;

/// Type of the condition that every kind has.
pub(crate) const READY: &str = "Ready";

/// How it is with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As it should be.
    Ready,
    /// On its way.
    Progressing,
    /// Not as it should be; somebody may have to do something.
    Wrong,
}

/// What the Ready condition will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How it is.
    pub(crate) status: Status,
    /// One word; also the reason of the Event and the metric's label.
    pub(crate) reason: Cow<'static, str>,
    /// For people: what is going on, and what to do about it.
    pub(crate) message: String,
}

impl Verdict {
    /// All is well.
    #[must_use]
    pub(crate) fn ready(message: impl Into<String>) -> Self {
        Self { status: Status::Ready, reason: READY.into(), message: message.into() }
    }

    /// On its way.
    #[must_use]
    pub(crate) fn progressing(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status: Status::Progressing, reason: reason.into(), message: message.into() }
    }

    /// Something is wrong.
    #[must_use]
    pub(crate) fn wrong(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status: Status::Wrong, reason: reason.into(), message: message.into() }
    }

    fn status(&self) -> &'static str {
        if self.status == Status::Ready { "True" } else { "False" }
    }

    /// Whether `before` says something else: worth an Event, which a mere count is not.
    #[must_use]
    pub(crate) fn is_news(&self, before: &[Condition]) -> bool {
        let same = |condition: &Condition| {
            condition.type_ == READY && condition.status == self.status() && condition.reason == self.reason
        };
        !before.iter().any(same)
    }
}

/// The conditions of an object of which `verdict` holds now and of which `before` was said last.
#[must_use]
pub(crate) fn conditions(
    before: &[Condition],
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let status = verdict.status();
    let former = before.iter().find(|condition| condition.type_ == READY && condition.status == status);
    vec![Condition {
        last_transition_time: former.map_or(Time(now), |former| former.last_transition_time.clone()),
        message: verdict.message.clone(),
        observed_generation: generation,
        reason: verdict.reason.clone().into_owned(),
        status: status.to_owned(),
        type_: READY.to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_is_that_of_a_transition() {
        let [first, second] = [1, 2].map(|second| Timestamp::from_second(second).expect("a time"));
        let waiting = Verdict::progressing("Loading", "0/2 workers");
        let before = conditions(&[], &waiting, Some(1), first);
        let still = conditions(&before, &Verdict::progressing("Loading", "1/2 workers"), Some(1), second);
        assert_eq!((still[0].last_transition_time.0, still[0].message.as_str()), (first, "1/2 workers"));
        let ready = conditions(&still, &Verdict::ready("2/2 workers"), Some(1), second);
        assert_eq!((ready[0].last_transition_time.0, ready[0].status.as_str()), (second, "True"));
        assert!(!Verdict::ready("2/2 workers").is_news(&ready) && waiting.is_news(&ready));
    }
}
