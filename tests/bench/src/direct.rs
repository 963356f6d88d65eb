//! One worker and a router, run as in a cluster: adapters come and go by the calls that an operator makes.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use slm_convert::bundle::cache_dir;
use slm_proto::v1::{AdapterState, LoadAdapterRequest, worker_control_client::WorkerControlClient};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    load::{Api, Endpoint},
    run::interrupt,
};

/// Far beyond what it takes until a router knows what its worker holds.
const READY_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Direct {
    worker: Child,
    router: Child,
    health: HealthClient<Channel>,
    control: WorkerControlClient<Channel>,
    pub(crate) endpoint: Endpoint,
}

/// What it is to have room for.
pub(crate) struct Room {
    /// Sequences that decode together.
    pub(crate) sequences: usize,
    /// Adapters; the first is `adapter-0`.
    pub(crate) adapters: usize,
    /// Their largest rank.
    pub(crate) rank_max: usize,
}

impl Direct {
    /// Starts both. What the worker fetches is kept in `dir`.
    pub(crate) async fn start(slm: &Path, model: &Path, dir: &Path, room: &Room) -> Result<Self> {
        // The converted model is the one that everybody uses.
        let converted = cache_dir().context("no cache folder")?.join("converted");
        std::os::unix::fs::symlink(converted, dir.join("converted"))?;
        let Room { sequences, adapters, rank_max } = room;
        let worker = Command::new(slm)
            .args(["worker", "--follow-stdin", "--name", "base", "--precision", "int4", "--speculative", "Off"])
            .args(["--context-length", &crate::CONTEXT.to_string(), "--max-sequences", &sequences.to_string()])
            .args(["--adapter-slots", &adapters.to_string(), "--adapter-max-rank", &rank_max.to_string()])
            .args(["--model".as_ref(), model.as_os_str(), "--cache".as_ref(), dir.as_os_str()])
            .piped()
            .spawn()
            .with_context(|| slm.display().to_string())?;
        let mut router = Command::new(slm)
            .args(["router", "--follow-stdin", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .piped()
            .spawn()?;
        let (worker, ready) = until_ready(worker).await?;
        let url = format!("http://{}", text(&ready, "address")?);
        let names = (0..*adapters).map(|i| json!({"name": format!("adapter-{i}"), "model": "base"}));
        let snapshot = json!({
            "generation": 1, "models": [{"name": "base", "workers": [url]}], "adapters": names.collect::<Vec<_>>(),
        });
        let input = router.stdin.as_mut().context("no input")?;
        input.write_all(format!("{snapshot}\n").as_bytes()).await?;
        let (router, ready) = until_ready(router).await?;
        let endpoint = Endpoint::new(Api::OpenAi, format!("http://{}", text(&ready, "http")?))?;
        let health = Channel::from_shared(format!("http://{}", text(&ready, "grpc")?))?.connect().await?;
        let control = WorkerControlClient::connect(url).await?;
        Ok(Self { worker, router, health: HealthClient::new(health), control, endpoint })
    }

    /// Makes the artifact `(URI, digest)` what `adapter-{number}` means.
    pub(crate) async fn load(&self, number: usize, source: &(String, String)) -> Result<AdapterState> {
        let (source, digest) = source.clone();
        let request = LoadAdapterRequest { name: format!("adapter-{number}"), source, digest, ..Default::default() };
        Ok(self.control.clone().load_adapter(request).await?.into_inner())
    }

    /// Waits until the router sees every adapter.
    pub(crate) async fn until_ready(&self) -> Result<()> {
        until_serving(self.health.clone()).await
    }

    /// Ends both as Ctrl-C would.
    pub(crate) async fn stop(self) -> Result<()> {
        interrupt(self.router).await?;
        interrupt(self.worker).await
    }
}

/// Both ends in our hands: a child ends when we do.
pub(crate) trait Piped {
    fn piped(&mut self) -> &mut Self;
}

impl Piped for Command {
    fn piped(&mut self) -> &mut Self {
        self.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true)
    }
}

/// Waits until a router sees all that its swarm has.
pub(crate) async fn until_serving(mut health: HealthClient<Channel>) -> Result<()> {
    let ready = async {
        let mut statuses = health.watch(HealthCheckRequest::default()).await?.into_inner();
        while let Some(now) = statuses.message().await? {
            if now.status() == ServingStatus::Serving {
                return Ok(());
            }
        }
        bail!("the router ended")
    };
    time::timeout(READY_LIMIT, ready).await.context("the router does not get ready")?
}

/// The line with which it says that it is ready.
pub(crate) async fn until_ready(mut child: Child) -> Result<(Child, Value)> {
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    while let Some(line) = lines.next_line().await? {
        let said: Value = serde_json::from_str(&line)?;
        match said["event"].as_str() {
            Some("ready") => return Ok((child, said)),
            Some("failed") => bail!("{}", text(&said, "message")?),
            _ => {}
        }
    }
    bail!("it ended: {}", child.wait().await?)
}

/// The text of a field.
pub(crate) fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str> {
    value[field].as_str().with_context(|| format!("no {field} in {value}"))
}
