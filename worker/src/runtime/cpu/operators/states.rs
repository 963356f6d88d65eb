//! What operators with states share.

use std::ops::Range;

use ort::operator::KernelContext;
use slm_kernels::{
    phases::cut,
    states::{Span, columns},
};

use super::{Shared, missing};

/// Tasks for each thread, so that others can take over from a delayed thread.
const TASKS: usize = 2;
/// Results that one thread convolves faster than a hand-over takes.
const ALONE: usize = 1 << 13;

/// Reads whole numbers of a node.
pub(super) fn numbers<'a>(context: &'a KernelContext<'_>) -> impl Fn(&str) -> ort::Result<usize> + 'a {
    |name| {
        let number: Option<i64> = context.get(name);
        number.and_then(|number| usize::try_from(number).ok()).ok_or_else(|| missing(name))
    }
}

/// Refuses a node whose states are not those of its layer.
pub(super) fn check(shared: &Shared, layer: usize, floats: usize) -> ort::Result<()> {
    let found = shared.step().states.floats(layer);
    if found == floats && floats > 0 {
        return Ok(());
    }
    Err(ort::Error::new(format!(
        "layer {layer} has states of {floats} floats, the model's own of {found}; convert it anew"
    )))
}

/// Columns of the tokens of a step, divided into tasks by sequence and column.
pub(super) struct Parts<'a> {
    spans: &'a [Span],
    width: usize,
    /// Parts of each sequence.
    parts: usize,
    tasks: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(spans: &'a [Span], (tokens, width): (usize, usize), threads: usize) -> Self {
        let tasks = if tokens * width <= ALONE { 1 } else { threads * TASKS };
        let parts = tasks.div_ceil(spans.len().max(1));
        Self { spans, width, parts, tasks: tasks.min(spans.len() * parts) }
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks
    }

    /// Calls `run` with the sequences and columns of a task.
    pub(super) fn of(&self, task: usize, run: impl Fn(Span, Range<usize>)) {
        let all = self.spans.len() * self.parts;
        for item in cut(all, task, self.tasks)..cut(all, task + 1, self.tasks) {
            run(self.spans[item / self.parts], columns(self.width, item % self.parts, self.parts));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn every_column_of_every_sequence_is_in_one_task() {
        for (sequences, tokens, width, threads) in [(1, 1, 64, 4), (1, 300, 100, 4), (3, 200, 128, 2), (40, 2, 1024, 3)]
        {
            let span = |index: usize| Span { first: index * tokens, tokens, slot: index, fresh: false };
            let spans: Vec<_> = (0..sequences).map(span).collect();
            let parts = Parts::new(&spans, (sequences * tokens, width), threads);
            let seen = RefCell::new(vec![0; sequences * width]);
            for task in 0..parts.tasks() {
                parts.of(task, |span, columns| {
                    columns.for_each(|column| seen.borrow_mut()[span.slot * width + column] += 1);
                });
            }
            assert!(seen.into_inner().iter().all(|times| *times == 1), "{sequences} of {tokens} by {width}");
        }
    }
}
