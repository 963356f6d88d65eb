//! The third tenant.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use slm_tests::swarm::Swarm;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// Where to, and with which token.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    connector: TlsConnector,
    client: reqwest::Client,
    token: &'static str,
}

/// What runs: on threads of its own with the least priority. The callers' machines are others, so their work is not to take
/// cores from the swarm, and what is measured is what they make the swarm do.
pub(crate) struct Attacks {
    attacks: Vec<Attack>,
    runtime: Runtime,
}

/// One kind of attack, as often as it runs at once.
struct Attack {
    name: &'static str,
    /// How often it has come round.
    count: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Target {
    pub(crate) fn new(swarm: &Swarm, certificate: &str, token: &'static str) -> Result<Self> {
        let address = swarm.http.trim_start_matches("http://").trim_start_matches("https://").parse()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).ok().context("a certificate")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let root = reqwest::Certificate::from_pem(certificate.as_bytes())?;
        let client = reqwest::Client::builder().no_proxy().add_root_certificate(root).build()?;
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)), client, token })
    }

    /// A connection that takes little before it is read.
    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let stream = socket.connect(self.address).await?;
        Ok(self.connector.connect(ServerName::try_from("localhost")?, stream).await?)
    }

    fn head(&self, length: usize) -> String {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n",
            self.token
        )
    }

    async fn post(&self, body: &Value) -> Result<()> {
        let url = format!("https://localhost:{}/v1/chat/completions", self.address.port());
        // Refused or answered, it is read: what is asked here is asked again at once.
        self.client.post(url).bearer_auth(self.token).json(body).send().await?.bytes().await?;
        Ok(())
    }
}

/// All of them at once, until `stop`.
pub(crate) fn all(target: &Target, stop: &CancellationToken) -> Result<Attacks> {
    let mut attacks = Attacks { attacks: Vec::new(), runtime: niced()? };
    attacks.start("rules", 4, target, stop, rules);
    attacks.start("unread", 64, target, stop, unread);
    attacks.start("connections", 1000, target, stop, connections);
    attacks.start("uploads", 64, target, stop, uploads);
    attacks.start("urgent", 32, target, stop, urgent);
    attacks.start("prompts", 4, target, stop, prompts);
    attacks.start("messages", 2, target, stop, messages);
    Ok(attacks)
}

fn niced() -> Result<Runtime> {
    // At their own priority they only attack harder.
    let nice = || {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
    };
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(nice).build()?)
}

impl Attacks {
    fn start<F: Future<Output = Result<()>> + Send + 'static>(
        &mut self,
        name: &'static str,
        times: usize,
        target: &Target,
        stop: &CancellationToken,
        attack: fn(Target) -> F,
    ) {
        let count = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..times)
            .map(|_| {
                let (target, stop, count) = (target.clone(), stop.clone(), Arc::clone(&count));
                self.runtime.spawn(async move {
                    let mut pause = tokio::time::interval(Duration::from_millis(20));
                    // What a peer does with such a caller is the peer's choice.
                    while let Some(_ended) = stop.run_until_cancelled(attack(target.clone())).await {
                        count.fetch_add(1, Ordering::Relaxed);
                        pause.tick().await;
                    }
                })
            })
            .collect();
        self.attacks.push(Attack { name, count, tasks });
    }

    /// How often each was begun, once all have ended.
    pub(crate) async fn ended(self) -> Result<BTreeMap<&'static str, usize>> {
        let mut counts = BTreeMap::new();
        for Attack { name, count, tasks } in self.attacks {
            let begun = tasks.len();
            for task in tasks {
                task.await?;
            }
            counts.insert(name, begun + count.load(Ordering::Relaxed));
        }
        self.runtime.shutdown_background();
        Ok(counts)
    }
}

/// What the rules of the route are dearest for.
async fn rules(target: Target) -> Result<()> {
    let metadata: serde_json::Map<_, _> = (0..64).map(|n| (format!("{n:0100}"), json!("x".repeat(800)))).collect();
    let messages: Vec<_> = (0..2000).map(|_| json!({"role": "user", "content": "a".repeat(1000)})).collect();
    target.post(&json!({"model": "assistant", "messages": messages, "metadata": metadata, "max_tokens": 1})).await
}

/// A long answer with everything there is to say of it, which nobody reads.
async fn unread(target: Target) -> Result<()> {
    let body = json!({
        "model": "mallory", "messages": [{"role": "user", "content": "Count to a hundred."}], "stream": true,
        "max_tokens": 400, "ignore_eos": true, "logprobs": true, "top_logprobs": 20,
    });
    let body = body.to_string();
    let mut connection = target.connect().await?;
    connection.write_all(format!("{}{body}", target.head(body.len())).as_bytes()).await?;
    connection.flush().await?;
    connection.read_u8().await?;
    std::future::pending().await
}

/// A connection that says nothing, opened again when it was ended.
async fn connections(target: Target) -> Result<()> {
    let mut connection = TcpStream::connect(target.address).await?;
    connection.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// A byte a second.
async fn uploads(target: Target) -> Result<()> {
    let mut connection = target.connect().await?;
    connection.write_all(target.head(100_000).as_bytes()).await?;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        connection.write_all(b"{").await?;
        connection.flush().await?;
    }
}

/// Before all others, as long as may be.
async fn urgent(target: Target) -> Result<()> {
    let prompt = "Tell me everything. ".repeat(60);
    let messages = [json!({"role": "user", "content": prompt})];
    target.post(&json!({"model": "mallory", "messages": messages, "priority": -1_000_000, "max_tokens": 200, "ignore_eos": true})).await
}

/// Four megabytes, all but.
async fn prompts(target: Target) -> Result<()> {
    let messages = [json!({"role": "user", "content": "word ".repeat(800_000)})];
    target.post(&json!({"model": "mallory", "messages": messages, "max_tokens": 1})).await
}

/// As many messages as fit, each empty.
async fn messages(target: Target) -> Result<()> {
    let messages = vec![json!({"role": "user", "content": ""}); 100_000];
    target.post(&json!({"model": "mallory", "messages": messages, "max_tokens": 1})).await
}
