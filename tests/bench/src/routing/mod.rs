//! `slm-bench routing`: what the router adds to a request.
//!
//! Two workers that answer at once stand behind mutual TLS, 10,000 experts are known, and callers send requests at a fixed rate,
//! whatever has come back. Latency counts from the moment at which a request was due. The workers, the callers and the router share the machine's cores; what a caller
//! without a router sees of the same workers at the same rate is the first row.

mod callers;
mod workers;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use slm_proto::v1::{GenerateRequest, Message, Messages, generate_request::Input};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

use self::{
    callers::{Latencies, send},
    workers::{Certificates, Workers},
};
use crate::{
    direct::{Piped as _, text, until_ready, until_serving},
    run::interrupt,
    table,
};

/// Texts that are kept once they were read.
const KNOWN_TEXTS: usize = 100;
/// Rules of the route that has them; the last one is true.
const RULES: usize = 20;
/// Labels of the head.
const LABELS: usize = 150;
/// Requests before the clock runs.
const WARM: Duration = Duration::from_secs(2);

/// Measures what the router adds to a request, beside workers that answer at once.
#[derive(Debug, Args)]
pub(crate) struct RoutingArgs {
    /// The `slm` binary to measure.
    #[arg(long, default_value = "target/release/slm")]
    slm: PathBuf,
    /// Requests a second.
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// Seconds of each row.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Experts of the swarm.
    #[arg(long, default_value_t = 10_000)]
    experts: usize,
    /// Times that all rows are measured.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Rows to measure: direct, name, rules, head, unread; all when not given.
    #[arg(long)]
    only: Vec<String>,
}

/// A way of a request to its expert.
struct Way {
    name: &'static str,
    what: &'static str,
    /// The request of that number.
    request: fn(usize) -> GenerateRequest,
    /// Bars of p50 and p99, in milliseconds.
    bars: [Option<f64>; 2],
}

const WAYS: [Way; 5] = [
    Way { name: "direct", what: "no router", request: |at| request(&expert(at % 64), at), bars: [None, None] },
    Way { name: "name", what: "by name", request: |at| request(&expert(at), at), bars: [Some(0.3), Some(1.0)] },
    Way {
        name: "rules",
        what: "by rules, the last of 20",
        request: |at| request("rules", at),
        bars: [Some(0.5), None],
    },
    Way {
        name: "head",
        what: "by head, texts that were read before",
        request: |at| request("head", at % KNOWN_TEXTS),
        bars: [Some(0.5), None],
    },
    Way { name: "unread", what: "by head, every text new", request: |at| request("head", at), bars: [Some(5.0), None] },
];

fn expert(at: usize) -> String {
    format!("expert-{}", at % 10_000)
}

fn request(model: &str, text: usize) -> GenerateRequest {
    let content = format!("please transfer the amount of {text} dollars to my savings account");
    let message = Message { role: "user".to_owned(), content, ..Message::default() };
    GenerateRequest {
        model: model.to_owned(),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        ..GenerateRequest::default()
    }
}

pub(crate) async fn measure(arguments: &RoutingArgs) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certificates = Certificates::mint(dir.path())?;
    let workers = Workers::start(&certificates, arguments.experts, LABELS)?;
    let router = Router::start(arguments, &certificates, &workers).await?;
    let routed = router.channel.clone();
    let direct = certificates.channel(workers.base())?;
    println!(
        "{}\n\n{} requests a second, {} experts, {} rounds of {} s\n",
        table::machine(),
        arguments.rate,
        arguments.experts,
        arguments.repeat,
        arguments.seconds
    );
    let wanted = |way: &&Way| arguments.only.is_empty() || arguments.only.iter().any(|only| only == way.name);
    let mut rows: Vec<(&Way, Latencies)> = WAYS.iter().filter(wanted).map(|way| (way, Latencies::default())).collect();
    let time = Duration::from_secs(arguments.seconds);
    for turn in 0..arguments.repeat {
        for (way, latencies) in &mut rows {
            let channel = if way.name == "direct" { &direct } else { &routed };
            // Texts of one turn are none of another's.
            let first = (turn + 1) * 10_000_000;
            if turn == 0 {
                send(channel, way.request, first / 2, arguments.rate, WARM).await?;
            }
            let found = send(channel, way.request, first, arguments.rate, time).await?;
            eprintln!("{}: {found}", way.name);
            latencies.add(found);
        }
    }
    println!("| way | p50 ms | p99 ms | bars | requests | failed |\n|---|---|---|---|---|---|");
    for (way, latencies) in rows {
        let bar = |bar: Option<f64>| bar.map_or_else(|| "-".to_owned(), |bar| format!("{bar}"));
        let bars = way.bars.map(bar).join(", ");
        println!("| {} | {latencies} | {bars} | {} | {} |", way.what, latencies.count(), latencies.failed());
    }
    router.stop().await?;
    drop(workers);
    Ok(())
}

/// A router process.
struct Router {
    process: Child,
    channel: Channel,
}

impl Router {
    async fn start(arguments: &RoutingArgs, certificates: &Certificates, workers: &Workers) -> Result<Self> {
        let mut process = Command::new(&arguments.slm)
            .args(["router", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--tls"])
            .arg(certificates.router())
            .piped()
            .spawn()
            .with_context(|| arguments.slm.display().to_string())?;
        let snapshot = swarm(arguments.experts, workers);
        process.stdin.as_mut().context("no input")?.write_all(format!("{snapshot}\n").as_bytes()).await?;
        let (process, ready) = until_ready(process).await?;
        let channel = Channel::from_shared(format!("http://{}", text(&ready, "grpc")?))?.connect().await?;
        until_serving(HealthClient::new(channel.clone())).await?;
        Ok(Self { process, channel })
    }

    async fn stop(self) -> Result<()> {
        interrupt(self.process).await
    }
}

fn swarm(experts: usize, workers: &Workers) -> Value {
    let adapters = (0..experts).map(|at| json!({ "name": format!("expert-{at}"), "model": "base" }));
    let head = json!({ "name": "the-head", "model": "encoder" });
    let target = |at: usize| json!({ "kind": "LoraAdapter", "name": format!("expert-{at}") });
    let rule = |at: usize| {
        let when = match at + 1 {
            RULES => r#"text.contains("savings account")"#.to_owned(),
            _ => format!(r#"text.matches("(?i)\\b(word{at}|another{at}|flights? number {at})\\b")"#),
        };
        json!({ "when": when, "to": target(at) })
    };
    let fallback = json!({ "kind": "SlmModel", "name": "base" });
    let rules: Vec<_> = (0..RULES).map(rule).collect();
    let targets: Vec<_> = (0..10).map(target).collect();
    let classifier = json!({ "model": { "kind": "LoraAdapter", "name": "the-head" }, "targets": targets });
    json!({
        "generation": 1,
        "models": [
            { "name": "base", "workers": [workers.base()] },
            { "name": "encoder", "workers": [workers.encoder()] },
        ],
        "adapters": adapters.chain([head]).collect::<Vec<_>>(),
        "routes": [
            { "name": "rules", "spec": { "rules": rules, "fallback": fallback } },
            { "name": "head", "spec": { "classifier": classifier, "fallback": fallback } },
        ],
    })
}

impl Certificates {
    /// Writes those of a swarm below `dir`.
    fn mint(dir: &std::path::Path) -> Result<Self> {
        let certificates = Self::new(dir)?;
        fs::create_dir_all(certificates.router())?;
        certificates.write_router()?;
        Ok(certificates)
    }
}
