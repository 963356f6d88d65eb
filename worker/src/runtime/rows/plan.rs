//! What a step becomes: `GroupQueryAttention` takes one token of many rows, many first tokens of many rows, or many tokens of
//! one row.

use crate::runtime::{
    Chunk,
    backend::{ChunkError, TOKENS_MAX},
};

/// One run of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Run {
    /// One token of each of the first `rows` rows; those that are no chunk's compute something that nobody reads.
    Decode {
        /// Rows of the run.
        rows: usize,
        /// Indices of the chunks.
        chunks: Vec<usize>,
    },
    /// Several tokens of one row, or the first tokens of rows side by side.
    Prefill {
        /// Indices of the chunks, in the order of their rows.
        chunks: Vec<usize>,
        /// First row.
        row: usize,
        /// Tokens of each row, padding included.
        tokens: usize,
        /// Whether they are the first of their rows.
        first: bool,
    },
}

/// Fewest tokens of a row in a prefill, padding included.
const TOKENS_MIN: usize = 16;
/// Bound on the tokens of a run, padding included: padding at most doubles those of a step.
pub(super) const PREFILL_MAX: usize = 2 * TOKENS_MAX;

/// Least bound on the positions of a run of answers, so that there are few.
const BOUND_MIN: usize = 256;

/// Bound on the positions of the rows of `run`, which end at `ends`: those of no chunk, too, since attention reads as far in
/// them.
pub(super) fn bound(run: &Run, ends: &[usize], positions: usize) -> usize {
    match run {
        // As long as the new tokens: `GroupQueryAttention` knows by it that nothing was there before.
        Run::Prefill { first: true, tokens, .. } => *tokens,
        _ => ends.iter().max().map_or(1, |end| *end).next_power_of_two().max(BOUND_MIN).min(positions),
    }
}

/// The row of a chunk.
pub(super) fn row(chunk: &Chunk<'_>) -> usize {
    chunk.pages.first().map_or(0, |&row| row as usize)
}

/// Runs of a step over `chunks`, of rows with `positions` positions each. Sizes come in powers of two, so that there are few.
pub(super) fn runs(chunks: &[Chunk<'_>], rows: usize, positions: usize) -> Result<Vec<Run>, ChunkError> {
    let mut taken = vec![false; rows];
    for (index, chunk) in chunks.iter().enumerate() {
        let wrong = |wrong| Err(ChunkError::new(index, wrong));
        let &[row] = chunk.pages else { return wrong("has other than one page, which is its row") };
        match taken.get_mut(row as usize) {
            None => return wrong("names a row that is not there"),
            Some(true) => return wrong("has the row of another"),
            Some(taken) => *taken = true,
        }
        if chunk.tokens.is_empty() {
            return wrong("has no tokens");
        }
        if chunk.past + chunk.tokens.len() > positions {
            return wrong("is longer than its row");
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    let (mut decoded, mut last) = (Vec::new(), 0);
    for (index, chunk) in chunks.iter().enumerate() {
        if chunk.tokens.len() == 1 {
            decoded.push(index);
            last = last.max(row(chunk));
        }
    }
    let mut prompts: Vec<usize> = (0..chunks.len()).filter(|&index| chunks[index].tokens.len() > 1).collect();
    prompts.sort_by_key(|&index| row(&chunks[index]));
    for index in prompts {
        let chunk = &chunks[index];
        let padded = chunk.tokens.len().next_power_of_two().max(TOKENS_MIN);
        let tokens = if chunk.past + padded <= positions { padded } else { chunk.tokens.len() };
        match runs.last_mut() {
            Some(Run::Prefill { chunks: others, row: begin, tokens: theirs, first: true })
                if chunk.past == 0
                    && *theirs == tokens
                    && *begin + others.len() == row(chunk)
                    && (others.len() + 1) * tokens <= PREFILL_MAX =>
            {
                others.push(index);
            }
            _ => runs.push(Run::Prefill { chunks: vec![index], row: row(chunk), tokens, first: chunk.past == 0 }),
        }
    }
    let mut runs: Vec<Run> = runs.into_iter().flat_map(in_powers).collect();
    if !decoded.is_empty() {
        runs.push(Run::Decode { rows: (last + 1).next_power_of_two().min(rows), chunks: decoded });
    }
    Ok(runs)
}

/// The same prompts in runs of a power of two of rows each: providers prepare each size of a run when they first meet it, so
/// there should be few.
fn in_powers(run: Run) -> Vec<Run> {
    let Run::Prefill { mut chunks, mut row, tokens, first } = run else { return vec![run] };
    let mut runs = Vec::new();
    while !chunks.is_empty() {
        let rest = chunks.split_off(1 << chunks.len().ilog2());
        let begin = row;
        row += chunks.len();
        runs.push(Run::Prefill { chunks: std::mem::replace(&mut chunks, rest), row: begin, tokens, first });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::LogitsRequest;

    fn planned(chunks: &[(usize, usize, &[u32])]) -> Result<Vec<Run>, String> {
        let tokens = [0; 100];
        let chunks: Vec<_> = chunks
            .iter()
            .map(|&(past, count, pages)| Chunk {
                tokens: &tokens[..count],
                past,
                pages,
                state: None,
                adapter: None,
                logits: LogitsRequest::Last,
                candidates: None,
            })
            .collect();
        runs(&chunks, 6, 64).map_err(|error| error.to_string())
    }

    fn prefill(chunks: &[usize], row: usize, tokens: usize, first: bool) -> Run {
        Run::Prefill { chunks: chunks.to_vec(), row, tokens, first }
    }

    #[test]
    fn prompts_that_begin_share_a_run_if_they_are_side_by_side_and_about_as_long() {
        let runs = planned(&[(0, 30, &[2]), (0, 17, &[1]), (0, 9, &[3]), (8, 9, &[4]), (0, 9, &[5])]).unwrap();
        let expected = [
            prefill(&[1, 0], 1, 32, true),
            prefill(&[2], 3, 16, true),
            prefill(&[3], 4, 16, false),
            prefill(&[4], 5, 16, true),
        ];
        assert_eq!(runs, expected);
        let runs = planned(&[(0, 9, &[0]), (0, 9, &[1]), (0, 9, &[2]), (0, 9, &[3]), (0, 9, &[4])]).unwrap();
        assert_eq!(runs, [prefill(&[0, 1, 2, 3], 0, 16, true), prefill(&[4], 4, 16, true)]);
    }

    #[test]
    fn a_run_is_bounded_by_its_longest_row_and_first_prompts_by_their_tokens() {
        let decode = Run::Decode { rows: 4, chunks: vec![0] };
        assert_eq!(bound(&decode, &[9, 3], 4096), 256);
        assert_eq!(bound(&decode, &[9, 257], 4096), 512, "the second is of no chunk");
        assert_eq!(bound(&decode, &[9, 3000], 3500), 3500);
        assert_eq!(bound(&prefill(&[0], 0, 32, true), &[32], 4096), 32);
        assert_eq!(bound(&prefill(&[0], 0, 32, false), &[532], 4096), 1024);
    }

    #[test]
    fn answers_share_a_run_and_prompts_have_their_own() {
        let runs = planned(&[(9, 1, &[2]), (0, 20, &[0]), (3, 1, &[1]), (50, 10, &[3])]).unwrap();
        let expected = [
            prefill(&[1], 0, 32, true),
            // Padding would not fit behind 50 others.
            prefill(&[3], 3, 10, false),
            Run::Decode { rows: 4, chunks: vec![0, 2] },
        ];
        assert_eq!(runs, expected);
        assert_eq!(
            planned(&[(9, 1, &[5])]).unwrap(),
            [Run::Decode { rows: 6, chunks: vec![0] }],
            "no more than there are"
        );
        assert_eq!(planned(&[(0, 3, &[0])]).unwrap(), [prefill(&[0], 0, 16, true)]);
    }

    #[test]
    fn chunks_that_do_not_fit_the_rows_are_refused() {
        for (chunks, wrong) in [
            (&[(0, 1, &[6][..])][..], "chunk 0 of the step names a row that is not there"),
            (&[(0, 1, &[0]), (0, 1, &[0])], "chunk 1 of the step has the row of another"),
            (&[(0, 1, &[0, 1])], "chunk 0 of the step has other than one page, which is its row"),
            (&[(0, 0, &[0])], "chunk 0 of the step has no tokens"),
            (&[(60, 5, &[0])], "chunk 0 of the step is longer than its row"),
        ] {
            assert_eq!(planned(chunks).unwrap_err(), wrong);
        }
    }
}
