//! How often larger targets may be asked. Pure but for the time, which comes from outside.

use std::{collections::VecDeque, time::Duration};

use slm_crds::route::EscalationBudget;
use tokio::time::Instant;

/// Answers whose share counts.
const ANSWERS: usize = 256;
const MINUTE: Duration = Duration::from_secs(60);

/// What a route has spent.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// Of the last answers, which were escalated.
    answers: VecDeque<bool>,
    escalated: usize,
    /// Escalations of the last minute.
    times: VecDeque<Instant>,
}

impl Spent {
    /// An answer was confident enough.
    pub(crate) fn kept(&mut self) {
        self.note(false);
    }

    /// Whether one more may be escalated now; it is counted either way.
    pub(crate) fn escalates(&mut self, budget: &EscalationBudget, now: Instant) -> bool {
        while self.times.front().is_some_and(|time| now.saturating_duration_since(*time) >= MINUTE) {
            self.times.pop_front();
        }
        let in_rate = budget.per_minute.is_none_or(|most| self.times.len() < most as usize);
        let in_share = budget.share.is_none_or(|share| {
            let answers = (self.answers.len() + 1).min(ANSWERS);
            self.escalated as f64 + 1.0 <= (share * answers as f64).ceil()
        });
        let escalates = in_rate && in_share;
        self.note(escalates);
        if escalates && budget.per_minute.is_some() {
            self.times.push_back(now);
        }
        escalates
    }

    fn note(&mut self, escalated: bool) {
        self.answers.push_back(escalated);
        self.escalated += usize::from(escalated);
        if self.answers.len() > ANSWERS
            && let Some(oldest) = self.answers.pop_front()
        {
            self.escalated -= usize::from(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(share: Option<f64>, per_minute: Option<u32>) -> EscalationBudget {
        EscalationBudget { share, per_minute, ..EscalationBudget::default() }
    }

    #[test]
    fn a_share_is_one_of_the_last_answers() {
        let (mut spent, now) = (Spent::default(), Instant::now());
        let tenth = budget(Some(0.1), None);
        let escalated: Vec<usize> = (0..1000).filter(|_| spent.escalates(&tenth, now)).collect();
        assert!((99..=101).contains(&escalated.len()), "{}", escalated.len());
        assert_eq!(escalated[..3], [0, 10, 20]);
        // Confident answers make room.
        (0..20).for_each(|_| spent.kept());
        assert!(spent.escalates(&tenth, now));
        assert!(!Spent::default().escalates(&budget(Some(0.0), None), now));
        assert!(Spent::default().escalates(&budget(None, None), now));
    }

    #[test]
    fn a_rate_is_of_any_minute() {
        let (mut spent, begin) = (Spent::default(), Instant::now());
        let two = budget(None, Some(2));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let allowed = [0, 30, 59, 60, 61, 90].map(|seconds| spent.escalates(&two, at(seconds)));
        assert_eq!(allowed, [true, true, false, true, false, true]);
    }
}
