//! The router process: receives snapshots on standard input, reports readiness over HTTP.

use std::{ffi::OsString, io, net::SocketAddr, path::PathBuf, time::Duration};

use slm_router::{Origin, Swarm, SwarmReadiness};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    event::{ChildId, Event},
    server_process::ServerProcess,
};

/// Interval of readiness checks: first and longest.
const ASK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// Longest time without readiness while all workers are loaded; after that waiting does not help.
const OVERDUE: Duration = Duration::from_secs(30);
/// Bytes of an answer: each of ten thousand adapters may be missing.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Launch options of the router.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Address of the HTTP endpoint.
    pub http: SocketAddr,
    /// Address of the gRPC endpoint.
    pub grpc: SocketAddr,
    /// Web pages that may call the HTTP endpoint.
    pub origins: Vec<Origin>,
    /// Whether the page at `/` is served.
    pub page: bool,
    /// Folder with certificate and tokens of the endpoints; without it they speak plain text, with everybody.
    pub access: Option<PathBuf>,
    /// File of Secrets for the stores that routes retrieve from.
    pub secrets: Option<PathBuf>,
    /// Time for running answers to finish after a shutdown was requested.
    pub drain: Duration,
}

/// The router, which is started again when it dies.
#[derive(Debug)]
pub(crate) struct RouterProcess {
    settings: RouterSettings,
    events: mpsc::Sender<Event>,
    pub(crate) process: ServerProcess,
    /// Generation of the last snapshot, for the task that checks readiness.
    generation: watch::Sender<u64>,
    asking: Option<tokio::task::AbortHandle>,
    snapshot: Option<String>,
}

impl RouterProcess {
    /// Not started yet.
    pub(crate) fn new(settings: RouterSettings, events: mpsc::Sender<Event>) -> Self {
        let process = ServerProcess::new(ChildId::Router, settings.drain, events.clone());
        Self { settings, events, process, generation: watch::channel(0).0, asking: None, snapshot: None }
    }

    /// Starts it, and gives it the last snapshot if there was one.
    ///
    /// # Errors
    /// The system does not start the process.
    pub(crate) async fn start(&mut self) -> io::Result<()> {
        let RouterSettings { http, grpc, origins, page, access, secrets, drain: _ } = &self.settings;
        let flags = ["router", "--follow-stdin", "--http", &http.to_string(), "--grpc", &grpc.to_string()];
        let allowed = origins.iter().map(|origin| format!("--http-allow-origin={origin}").into());
        // A guarded endpoint says only whether it is ready, not what is missing: that is told on a port of loopback.
        let guarded = access.iter().flat_map(|folder| {
            let folder = [OsString::from("--access"), folder.into()];
            folder.into_iter().chain(["--probes".into(), "127.0.0.1:0".into()])
        });
        let secrets = secrets.iter().flat_map(|file| [OsString::from("--secrets"), file.into()]);
        let page = page.then(|| OsString::from("--page"));
        let flags = flags.map(OsString::from).into_iter().chain(allowed).chain(guarded).chain(secrets).chain(page);
        self.process.start(flags)?;
        if let Some(snapshot) = &self.snapshot {
            self.process.say(snapshot.clone()).await;
        }
        Ok(())
    }

    /// It listens: from now on it is asked whether it is ready. Started again, it listens there too.
    pub(crate) fn bound(&mut self, http: SocketAddr, grpc: SocketAddr, probes: Option<SocketAddr>) {
        (self.settings.http, self.settings.grpc) = (http, grpc);
        let asking = tokio::spawn(ask(probes.unwrap_or(http), self.generation.subscribe(), self.events.clone()));
        if let Some(before) = self.asking.replace(asking.abort_handle()) {
            before.abort();
        }
    }

    /// Gives it a snapshot.
    ///
    /// # Errors
    /// The snapshot does not serialize, which is a fault of ours.
    pub(crate) async fn publish(&mut self, swarm: &Swarm) -> Result<(), serde_json::Error> {
        let line = serde_json::to_string(swarm)?;
        self.process.say(line.clone()).await;
        self.snapshot = Some(line);
        self.generation.send_replace(swarm.generation);
        Ok(())
    }

    /// It ended; gives how long to wait before its next start.
    pub(crate) fn ended(&mut self) -> Duration {
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
        self.process.ended()
    }
}

/// Asks until the router uses the last snapshot and is ready, and again after the next one.
async fn ask(http: SocketAddr, mut generation: watch::Receiver<u64>, events: mpsc::Sender<Event>) {
    loop {
        let wanted = *generation.borrow_and_update();
        let (mut delay, since) = (ASK.0, Instant::now());
        let (mut told, mut overdue) = (None, false);
        while !generation.has_changed().unwrap_or(true) {
            if let Ok(readiness) = readyz(http).await {
                let done = readiness.ready && readiness.generation == wanted;
                if !overdue && !done && since.elapsed() > OVERDUE {
                    overdue = true;
                    let _ = events.send(Event::Overdue(readiness.clone())).await;
                }
                if told.as_ref() != Some(&readiness) {
                    told = Some(readiness.clone());
                    let _ = events.send(Event::Readiness(readiness)).await;
                }
                if done {
                    break;
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(ASK.1);
        }
        if generation.changed().await.is_err() {
            return;
        }
    }
}

/// One `GET /readyz`. A whole HTTP client would be more than one request on the loopback needs.
async fn readyz(http: SocketAddr) -> io::Result<SwarmReadiness> {
    let mut stream = TcpStream::connect(reachable(http)).await?;
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let start = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    serde_json::from_slice(&answer[start..]).map_err(io::Error::other)
}

/// An address that a client can connect to: `0.0.0.0` means any of this machine's.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        address => address,
    }
}
