//! Chunked prefill: the number of tokens of each sequence in the next step.

use std::time::Duration;

use super::queue::AGED_EVERY;
use crate::runtime::TOKENS_MAX;

/// A running sequence's need for the next step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Tokens that are not in the cache: one for a decoding sequence, more for a prompt.
    pub(super) left: usize,
    /// Priority of the request; lower goes first.
    pub(super) priority: i32,
}

impl Demand {
    fn generates(self) -> bool {
        self.left == 1
    }
}

/// Tokens of the next step for each sequence, in the order of admission. Decoding sequences get their token. Prompts
/// share `prompt_tokens`: the lowest priority number first; half goes to the oldest, so that none starves, and the rest
/// to the shortest, so that many start soon. If the oldest of all has another priority, it gets an eighth first, so
/// that every admitted request completes.
pub(super) fn schedule(demands: &[Demand], prompt_tokens: usize, scheduled: &mut Vec<usize>) {
    scheduled.clear();
    scheduled.extend(demands.iter().map(|demand| usize::from(demand.generates())));
    let generating: usize = scheduled.iter().sum();
    let mut budget = prompt_tokens.min(TOKENS_MAX.saturating_sub(generating));
    let mut prompts: Vec<usize> = (0..demands.len()).filter(|&index| !demands[index].generates()).collect();
    let mut give = |index: usize, most: usize, budget: &mut usize| {
        let more = (demands[index].left - scheduled[index]).min(most).min(*budget);
        scheduled[index] += more;
        *budget -= more;
    };
    let lowest = prompts.iter().map(|&index| demands[index].priority).min();
    if let Some(&first) = prompts.first().filter(|&&index| Some(demands[index].priority) != lowest) {
        let eighth = budget.div_ceil(AGED_EVERY);
        give(first, eighth, &mut budget);
    }
    if let Some(&oldest) = prompts.iter().min_by_key(|&&index| demands[index].priority) {
        let half = budget.div_ceil(2);
        give(oldest, half, &mut budget);
    }
    prompts.sort_by_key(|&index| (demands[index].priority, demands[index].left));
    for index in prompts {
        give(index, usize::MAX, &mut budget);
    }
}

/// Fewest prompt tokens of a step, so that prompts progress on any machine.
const PROMPT_MIN: usize = 16;
/// Weight of the newest observation.
const NEWEST: f64 = 0.2;

/// Learned durations of steps, which determine how many prompt tokens fit in a step while sequences decode.
#[derive(Debug)]
pub(super) struct Pace {
    step_max: f64,
    /// Seconds of a step without prefill.
    plain: Option<f64>,
    /// Additional seconds of a prompt token.
    token: Option<f64>,
}

impl Pace {
    /// A pace for steps of at most `step_max` while a sequence decodes.
    pub(super) fn new(step_max: Duration) -> Self {
        Self { step_max: step_max.as_secs_f64(), plain: None, token: None }
    }

    /// Bound on the prompt tokens of the next step.
    pub(super) fn prompt_tokens(&self, somebody_generates: bool) -> usize {
        if !somebody_generates {
            return TOKENS_MAX;
        }
        // The first prompt measures the cost of a token.
        let Some(token) = self.token else { return PROMPT_MIN };
        let room = self.step_max - self.plain.unwrap_or(0.0);
        ((room / token) as usize).clamp(PROMPT_MIN, TOKENS_MAX)
    }

    /// Records the duration of a step with this many prompt tokens.
    pub(super) fn observe(&mut self, prompt_tokens: usize, somebody_generates: bool, took: Duration) {
        let took = took.as_secs_f64();
        if prompt_tokens == 0 {
            self.plain = Some(blend(self.plain, took));
        } else if prompt_tokens >= PROMPT_MIN {
            let plain = if somebody_generates { self.plain.unwrap_or(0.0) } else { 0.0 };
            // Never zero: one step as fast as a plain one proves little.
            self.token = Some(blend(self.token, ((took - plain) / prompt_tokens as f64).max(1e-6)));
        }
    }
}

fn blend(old: Option<f64>, new: f64) -> f64 {
    old.map_or(new, |old| old + (new - old) * NEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(lefts: &[usize], budget: usize) -> Vec<usize> {
        let demands: Vec<_> = lefts.iter().map(|&left| Demand { left, priority: 0 }).collect();
        let mut result = Vec::new();
        schedule(&demands, budget, &mut result);
        result
    }

    #[test]
    fn everybody_who_generates_gets_a_token() {
        assert_eq!(shared(&[1, 1, 1], 0), [1, 1, 1]);
        assert_eq!(shared(&[1; 3], 100), [1; 3]);
    }

    #[test]
    fn prompts_fill_what_is_left() {
        assert_eq!(shared(&[1, 300], 64), [1, 64]);
        assert_eq!(shared(&[300, 10, 20, 1], 64), [34, 10, 20, 1], "the oldest, then the short ones");
        assert_eq!(shared(&[10, 300], 64), [10, 54]);
        assert_eq!(shared(&[1; 256].map(|_: usize| 1), 512).iter().sum::<usize>(), 256);
        assert_eq!(shared(&[600, 1], 512), [511, 1], "no step is larger than a step may be");
    }

    #[test]
    fn the_lowest_priority_number_goes_first() {
        let demands = [(300, 5), (100, 0), (90, 0)].map(|(left, priority)| Demand { left, priority });
        let mut result = Vec::new();
        schedule(&demands, 100, &mut result);
        assert_eq!(result, [13, 44, 43], "and the oldest of all comes to its end nevertheless");
    }

    #[test]
    fn prompts_beside_others_are_cut_to_what_these_can_wait() {
        let mut pace = Pace::new(Duration::from_millis(100));
        assert_eq!(pace.prompt_tokens(false), TOKENS_MAX);
        assert_eq!(pace.prompt_tokens(true), PROMPT_MIN, "nothing is known yet");
        pace.observe(100, false, Duration::from_millis(100));
        pace.observe(0, true, Duration::from_millis(20));
        assert_eq!(pace.prompt_tokens(true), 80);
        for _ in 0..50 {
            pace.observe(80, true, Duration::from_millis(180));
        }
        assert!((39..=41).contains(&pace.prompt_tokens(true)), "{pace:?}");
        pace.observe(0, true, Duration::from_secs(5));
        assert_eq!(pace.prompt_tokens(true), PROMPT_MIN);
    }
}
