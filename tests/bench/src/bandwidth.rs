//! Memory: what a decoding step reads of it, beside what the cores can read.

use std::{fs, sync::Barrier, thread};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use slm_convert::bundle::Bundle;
use slm_kernels::roofline::read_bandwidth;
use slm_worker::model::available_threads;

use crate::table::spread;

/// Several times the last cache of a server's CPU.
const BUFFER_BYTES: usize = 256 << 20;
const PASSES: usize = 2;

/// One side's weights and how often they were read.
pub(crate) struct Reads {
    pub(crate) side: &'static str,
    /// Read by one step.
    pub(crate) weight_bytes: u64,
    /// Steps a second, turn by turn.
    pub(crate) steps: Vec<f64>,
}

/// Bytes a second that all the threads that a worker would use can read together. Each tells its best moment, so this
/// is the most that there is, and shares of it are the least that they can be.
pub(crate) fn measure() -> f64 {
    let threads = available_threads();
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let one = || {
            start.wait();
            read_bandwidth(BUFFER_BYTES, PASSES)
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

/// Bytes of weights that a step over `bundle` reads: all, for the head of every measured model is its embedding.
pub(crate) fn weight_bytes(bundle: &Bundle) -> Result<u64> {
    let path = bundle.dir.join("model.onnx.data");
    Ok(fs::metadata(&path).with_context(|| path.display().to_string())?.len())
}

/// A table of both sides.
pub(crate) fn markdown(bandwidths: &[f64], sides: &[Reads]) -> String {
    let (low, middle, high) = spread(bandwidths);
    let mut out = format!(
        "Memory, decoding at 1 stream, beside {:.1} GB/s ({:.1}-{:.1}) that {} threads can read:\n\n\
         | | weights of a step | read of them | share |\n|---|---|---|---|\n",
        middle / 1e9,
        low / 1e9,
        high / 1e9,
        available_threads()
    );
    for side in sides {
        let read: Vec<_> = side.steps.iter().map(|steps| steps * side.weight_bytes as f64).collect();
        let shares: Vec<_> = read.iter().zip(bandwidths).map(|(read, all)| read / all * 1e2).collect();
        let ((read_low, read, read_high), (low, middle, high)) = (spread(&read), spread(&shares));
        out += &format!(
            "| {} | {:.1} MB | {:.1} GB/s ({:.1}-{:.1}) | {middle:.0} % ({low:.0}-{high:.0}) |\n",
            side.side,
            side.weight_bytes as f64 / 1e6,
            read / 1e9,
            read_low / 1e9,
            read_high / 1e9,
        );
    }
    out
}

pub(crate) fn json(bandwidths: &[f64], sides: &[Reads]) -> Value {
    let side = |reads: &Reads| json!({"side": reads.side, "weight_bytes": reads.weight_bytes, "steps_per_second": reads.steps});
    json!({"bytes_per_second": bandwidths, "sides": sides.iter().map(side).collect::<Vec<_>>()})
}
