//! What a step becomes: `GroupQueryAttention` takes one token of many rows, or many tokens of one row.

use crate::runtime::{Chunk, backend::ChunkError};

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
    /// Several tokens of one row.
    Prefill {
        /// Index of the chunk.
        chunk: usize,
        /// Tokens of the run, padding included.
        tokens: usize,
    },
}

/// Fewest tokens of a prefill, padding included.
const TOKENS_MIN: usize = 16;

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
        } else {
            let padded = chunk.tokens.len().next_power_of_two().max(TOKENS_MIN);
            let fits = chunk.past + padded <= positions;
            runs.push(Run::Prefill { chunk: index, tokens: if fits { padded } else { chunk.tokens.len() } });
        }
    }
    if !decoded.is_empty() {
        runs.push(Run::Decode { rows: (last + 1).next_power_of_two().min(rows), chunks: decoded });
    }
    Ok(runs)
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
                adapter: None,
                logits: LogitsRequest::Last,
                candidates: None,
            })
            .collect();
        runs(&chunks, 6, 64).map_err(|error| error.to_string())
    }

    #[test]
    fn answers_share_a_run_and_prompts_have_their_own() {
        let runs = planned(&[(9, 1, &[2]), (0, 20, &[0]), (3, 1, &[1]), (40, 20, &[3])]).unwrap();
        let expected = [
            Run::Prefill { chunk: 1, tokens: 32 },
            // Padding would not fit behind 40 others.
            Run::Prefill { chunk: 3, tokens: 20 },
            Run::Decode { rows: 4, chunks: vec![0, 2] },
        ];
        assert_eq!(runs, expected);
        assert_eq!(
            planned(&[(9, 1, &[5])]).unwrap(),
            [Run::Decode { rows: 6, chunks: vec![0] }],
            "no more than there are"
        );
        assert_eq!(planned(&[(0, 3, &[0])]).unwrap(), [Run::Prefill { chunk: 0, tokens: 16 }]);
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
