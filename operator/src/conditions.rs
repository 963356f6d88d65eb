//! Status conditions. Only this module sets them, so that lastTransitionTime is the time of a transition.

use std::borrow::Cow;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use slm_crds::status::Condition;

/// Condition type that every kind has.
pub(crate) const READY: &str = "Ready";

/// State of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As specified.
    Ready,
    /// Becoming as specified.
    Progressing,
    /// Failed; a person may have to act.
    Wrong,
}

/// Content of the Ready condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// State that the condition reports.
    pub(crate) status: Status,
    /// CamelCase reason; also the reason of the Event and the label of the metric.
    pub(crate) reason: Cow<'static, str>,
    /// Human-readable message: the state, and what to do about it.
    pub(crate) message: String,
}

impl Verdict {
    /// A verdict of status True.
    #[must_use]
    pub(crate) fn ready(message: impl Into<String>) -> Self {
        Self { status: Status::Ready, reason: READY.into(), message: message.into() }
    }

    /// A verdict of status False that passes by itself.
    #[must_use]
    pub(crate) fn progressing(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status: Status::Progressing, reason: reason.into(), message: message.into() }
    }

    /// A verdict of status False that needs a change.
    #[must_use]
    pub(crate) fn wrong(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status: Status::Wrong, reason: reason.into(), message: message.into() }
    }

    fn status(&self) -> &'static str {
        if self.status == Status::Ready { "True" } else { "False" }
    }

    /// Whether the status or reason differs from `before`: worth an Event, which a changed count is not.
    #[must_use]
    pub(crate) fn is_news(&self, before: &[Condition]) -> bool {
        let same = |condition: &Condition| {
            condition.type_ == READY && condition.status == self.status() && condition.reason == self.reason
        };
        !before.iter().any(same)
    }
}

/// The conditions of an object whose verdict is now `verdict`; `before` are the stored ones.
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
