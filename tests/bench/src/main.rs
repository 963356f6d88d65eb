//! `make bench`: tokens a second through the HTTP endpoint of a running swarm, beside what the bare ONNX Runtime step
//! gives on the same graph at the same batch, in the same run.
//!
//! The two take turns, so that a machine whose speed drifts drifts for both. Figures are medians with their range.

mod adapters;
mod bare;
mod served;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use table::Row;

/// Tokens of each prompt and of each answer in the decoding rows.
const PROMPT: usize = 128;
const ANSWER: usize = 128;
/// Tokens of the prompt whose first token is timed.
const LONG_PROMPT: usize = 512;
/// Streams of the batched rows, and so adapters that are made.
const STREAMS: usize = 8;
const RANK: usize = 16;

/// Speed of a swarm beside the bare ONNX Runtime step, on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// The `slm` binary to measure.
    #[arg(long, default_value = "target/release/slm")]
    slm: PathBuf,
    /// Times that each figure is taken.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
}

/// Which adapters the streams of a row use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    Base,
    Same,
    Distinct,
}

impl Mix {
    /// Adapter of stream `stream`.
    pub(crate) fn adapter(self, stream: usize) -> Option<usize> {
        match self {
            Self::Base => None,
            Self::Same => Some(0),
            Self::Distinct => Some(stream),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let dir = tempfile::tempdir()?;
    let mut bare = bare::Bare::open(dir.path())?;
    let served = served::Served::start(&arguments.slm, dir.path()).await?;
    let prompt = bare.prompt(LONG_PROMPT)?;

    let decoding = [
        ("1 stream, base", 1, Mix::Base),
        ("1 stream, rank-16 adapter", 1, Mix::Same),
        ("8 streams, base", STREAMS, Mix::Base),
        ("8 streams, same rank-16 adapter", STREAMS, Mix::Same),
        ("8 streams, 8 distinct rank-16 adapters", STREAMS, Mix::Distinct),
    ];
    let mut rows: Vec<Row> = decoding.iter().map(|(name, ..)| Row::rate(name)).collect();
    rows.push(Row::time("time to first token, 512 prompt tokens"));
    for turn in 0..=arguments.repeat {
        for (row, &(_, streams, mix)) in rows.iter_mut().zip(&decoding) {
            let bare = bare.decode(streams, mix, &prompt[..PROMPT])?;
            let served = served.decode(streams, mix, &prompt[..PROMPT]).await?;
            // The first turn warms caches and pages up.
            if turn > 0 {
                row.add(bare, served);
            }
        }
        let bare = bare.first_token(&prompt)?;
        let served = served.first_token(&prompt).await?;
        if let (Some(row), true) = (rows.last_mut(), turn > 0) {
            row.add(bare, served);
        }
        eprintln!("turn {turn} of {}", arguments.repeat);
    }
    println!("{}", table::render(&rows));
    served.stop().await
}
