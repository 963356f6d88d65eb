//! `slm-bench backend`: speed of a backend itself on any execution provider, driven as the engine drives it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use slm_convert::{
    bundle::{Bundle, PrecisionChoice},
    checkpoint::Checkpoint,
    graph::{Activations, Precision},
    peft::Adapter,
};
use slm_tests::sequence::{Sequence, greedy};
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters},
    model::available_threads,
    runtime::{AdapterRoom, Backend, OpenVinoDevice, Opened, Provider, Runtime, SessionConfig, TOKENS_MAX},
};

use crate::{RANK, adapters};

/// Tokens of each prompt.
const PROMPT: usize = 128;
/// Steps before the clock runs, in which graphs are captured.
const WARM: usize = 4;

/// Measures steps of a backend, without a worker around it.
#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// The checkpoint: a GGUF file, or a folder.
    model: PathBuf,
    /// Execution provider: Cpu, CpuGqa, CpuStandard, CpuDelta, Cuda or OpenVino.
    #[arg(long, default_value = "Cpu", value_parser = provider)]
    provider: Provider,
    /// Precision of the weights: F32, F16, Int4 or Int8.
    #[arg(long, default_value = "Int4", value_parser = precision)]
    precision: Precision,
    /// Sequences that generate at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    streams: Vec<usize>,
    /// Adapters, of which stream `i` has number `i` modulo the count; 0 is the base.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 8])]
    adapters: Vec<usize>,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Longest sequence in tokens.
    #[arg(long, default_value_t = 1024)]
    context: usize,
    /// Folder of converted models.
    #[arg(long)]
    converted: PathBuf,
}

fn provider(name: &str) -> Result<Provider> {
    match name {
        "Cpu" => Ok(Provider::Cpu),
        "CpuGqa" => Ok(Provider::CpuGqa(Activations::F32)),
        "CpuStandard" => Ok(Provider::CpuStandard(Activations::F32)),
        "CpuDelta" => Ok(Provider::CpuDelta(Activations::F32)),
        "Cuda" => Ok(Provider::Cuda(0)),
        "OpenVino" => Ok(Provider::OpenVino { device: OpenVinoDevice::Cpu }),
        _ => anyhow::bail!("Cpu, CpuGqa, CpuStandard, CpuDelta, Cuda and OpenVino are there"),
    }
}

fn precision(name: &str) -> Result<Precision> {
    [Precision::F32, Precision::F16, Precision::Int4, Precision::Int8]
        .into_iter()
        .find(|precision| precision.to_string() == name)
        .context("F32, F16, Int4 and Int8 are there")
}

struct Measured {
    backend: Box<dyn Backend>,
    leases: Vec<Arc<AdapterLease>>,
    load_times: Vec<Duration>,
    context: usize,
}

/// Measures and prints a table.
pub(crate) fn measure(arguments: &BackendArgs) -> Result<()> {
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let begun = Instant::now();
    let flavour = arguments.provider.flavour(PrecisionChoice::Exactly(arguments.precision));
    let bundle = Bundle::open_or_build(&checkpoint, flavour, &arguments.converted, &mut |_, _| ())?;
    let converted = begun.elapsed();
    let begun = Instant::now();
    let mut measured = open(arguments, &bundle)?;
    println!(
        "{} on {:?}, {}: {:.1} MB of weights, converted in {:.1} s, opened in {:.1} s",
        arguments.model.display(),
        arguments.provider,
        flavour.resolve(&checkpoint),
        bundle.weight_bytes()? as f64 / 1e6,
        converted.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    let mut loads: Vec<f64> = measured.load_times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    loads.sort_by(f64::total_cmp);
    if let [first, .., last] = loads[..] {
        let middle = loads[loads.len() / 2];
        println!("adapters of rank {RANK}: loaded in {middle:.1} ms ({first:.1} to {last:.1})");
    }
    println!(
        "\n| adapters | streams | tokens/s | ms a step | prompt of {PROMPT}, ms | prompt of 512, ms |\n|---|---|---|---|---|---|"
    );
    for &count in &arguments.adapters {
        for &streams in &arguments.streams {
            let (seconds, first, long) = measured.decode(streams, count, arguments.tokens)?;
            println!(
                "| {count} | {streams} | {:.0} | {:.3} | {:.2} | {:.2} |",
                streams as f64 / seconds,
                seconds * 1e3,
                first * 1e3,
                long * 1e3
            );
        }
    }
    Ok(())
}

fn open(arguments: &BackendArgs, bundle: &Bundle) -> Result<Measured> {
    let most = |of: &[usize]| of.iter().copied().max().unwrap_or(0);
    let (streams, count) = (most(&arguments.streams), most(&arguments.adapters));
    ensure!(arguments.context > 512 && arguments.context > PROMPT + arguments.tokens + WARM, "a longer --context");
    let registry = Adapters::new(count, 0, 0);
    let session = SessionConfig {
        context_length: arguments.context,
        pages: arguments.provider.pages_for(streams, arguments.context),
        sequences: streams,
        logits: streams.min(TOKENS_MAX),
        threads: available_threads(),
    };
    let room = AdapterRoom { slots: count, rank_max: RANK };
    let Opened { backend, loader, .. } =
        arguments.provider.open(&Runtime::load()?, bundle, session, room, registry.table())?;
    let dir = tempfile::tempdir()?;
    let (mut leases, mut load_times) = (Vec::new(), Vec::new());
    for index in 0..count {
        let path = dir.path().join(index.to_string());
        adapters::write(&path, &bundle.info.architecture, RANK, index as u64)?;
        let (loaded, took) = loaded(&path, bundle, &loader)?;
        let info = AdapterInfo::new(&format!("adapter-{index}"), &loaded, 1.0, took);
        leases.push(registry.publish(info, loaded)?);
        load_times.push(took);
    }
    Ok(Measured { backend, leases, load_times, context: arguments.context })
}

/// An adapter, from its files to the memory of the backend, and how long that took.
fn loaded(
    path: &Path,
    bundle: &Bundle,
    loader: &slm_worker::runtime::AdapterLoader,
) -> Result<(slm_worker::adapters::LoadedAdapter, Duration)> {
    let begun = Instant::now();
    let adapter = Adapter::open(path, &bundle.info.architecture)?;
    Ok((loader.load(&adapter, 1.0)?, begun.elapsed()))
}

impl Measured {
    /// Seconds of a step of `streams` answers, of a prompt before anybody generates, and of a prompt of 512 tokens.
    fn decode(&mut self, streams: usize, count: usize, tokens: usize) -> Result<(f64, f64, f64)> {
        let slots: Vec<usize> = self.leases.iter().take(count).map(|lease| lease.slot()).collect();
        let slot = |stream: usize| (count > 0).then(|| slots[stream % count]);
        let geometry = self.backend.geometry();
        let prompt = |len: usize| (0..len as u32).map(|i| i * 7 % geometry.vocab_size as u32).collect::<Vec<_>>();
        let sequences = (0..streams).map(|stream| Sequence::new(&geometry, stream, self.context, slot(stream)));
        let mut sequences: Vec<_> = sequences.collect();
        let (mut firsts, mut longs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut long = [Sequence::new(&geometry, 0, self.context, slot(0))];
            long[0].push(&prompt(512));
            let begun = Instant::now();
            self.advance(&mut long)?;
            longs.push(begun.elapsed().as_secs_f64());
        }
        for sequence in &mut sequences {
            sequence.push(&prompt(PROMPT));
            let begun = Instant::now();
            self.advance(std::slice::from_mut(sequence))?;
            firsts.push(begun.elapsed().as_secs_f64());
        }
        for _ in 0..WARM {
            self.advance(&mut sequences)?;
        }
        let begun = Instant::now();
        for _ in 0..tokens {
            self.advance(&mut sequences)?;
        }
        let seconds = begun.elapsed().as_secs_f64() / tokens as f64;
        Ok((seconds, median(&mut firsts), median(&mut longs)))
    }

    /// A step of all, and the likeliest next token of each.
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<()> {
        let tokens = greedy(&mut *self.backend, sequences)?;
        sequences.iter_mut().zip(tokens).for_each(|(sequence, token)| sequence.push(&[token]));
        Ok(())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
