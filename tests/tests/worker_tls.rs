//! A worker behind mutual TLS, in this process: who may call what, and new certificates under load.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use slm_proto::v1::{self, generation_client::GenerationClient, worker_control_client::WorkerControlClient};
use slm_tests::tiny::{self, adapter, greedy, ids};
use slm_tls::{
    Identity, Material, Pem, Tls, client,
    mint::{self, Minted},
};
use slm_worker::WorkerEvent;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

const HOUR: Duration = Duration::from_secs(3600);
const CALLERS: usize = 8;
/// Some caller has an answer within.
const TURN: Duration = Duration::from_secs(30);

fn authority() -> Result<Minted> {
    Ok(mint::authority(SystemTime::now(), HOUR)?)
}

/// A certificate of `identity` by `issuer`, trusting `bundle`.
fn pem(issuer: &Minted, bundle: &[&Minted], identity: Identity) -> Result<Pem> {
    let leaf = mint::leaf(issuer, identity, SystemTime::now(), HOUR)?;
    let bundle: String = bundle.iter().map(|authority| authority.certificate.as_str()).collect();
    Ok(Pem { authorities: bundle.into(), certificate: leaf.certificate.into(), key: leaf.key.into() })
}

fn caller(issuer: &Minted, bundle: &[&Minted], identity: Identity) -> Result<Tls> {
    Ok(Tls::new(Material::read(&pem(issuer, bundle, identity)?, identity)?)?)
}

/// A Secret's files; each as a whole, because half a file is a third thing beside old and new.
fn write(folder: &Path, pem: &Pem) -> Result<()> {
    for (name, bytes) in [("ca.crt", &pem.authorities), ("tls.crt", &pem.certificate), ("tls.key", &pem.key)] {
        fs::write(folder.join("next"), bytes)?;
        fs::rename(folder.join("next"), folder.join(name))?;
    }
    Ok(())
}

/// A worker that ends with the test, and the folder of its certificates.
struct Worker {
    address: SocketAddr,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<Result<(), slm_worker::WorkerError>>,
    certificates: PathBuf,
    _folder: tempfile::TempDir,
}

impl Worker {
    async fn start(swarm: &Minted) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let certificates = folder.path().join("certificates");
        fs::create_dir(&certificates)?;
        write(&certificates, &pem(swarm, &[swarm], Identity::Worker)?)?;
        let mut config = tiny::worker(folder.path())?;
        config.tls = Some(certificates.clone());
        config.model.queue_max = 64;
        let shutdown = CancellationToken::new();
        let (ready, mut address) = mpsc::unbounded_channel();
        let done = tokio::spawn(slm_worker::run(config, shutdown.clone(), move |event| {
            if let WorkerEvent::Ready { address } = event {
                // Nobody listens any more once the test has failed.
                let _ = ready.send(address);
            }
        }));
        let address = address.recv().await.context("the worker did not get ready")?;
        Ok(Self { address, shutdown, done, certificates, _folder: folder })
    }

    fn channel(&self, tls: &Tls) -> Result<Channel> {
        channel(self.address, tls)
    }

    /// Waits until the worker lets `caller` in, or does so no longer.
    async fn reached(&self, caller: &Tls, let_in: bool) -> Result<()> {
        let reached = async {
            while state(self.channel(caller)?).await.is_ok() != let_in {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        tokio::time::timeout(TURN, reached).await.context("new certificates were not taken")?
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.done.await??)
    }
}

fn channel(address: SocketAddr, tls: &Tls) -> Result<Channel> {
    Ok(client::channel(&Endpoint::from_shared(format!("https://{address}"))?, Identity::Worker, Some(tls))?)
}

async fn load(channel: Channel) -> Result<v1::AdapterState, Status> {
    let source = format!("file:{}", adapter("r4-all").display());
    let request = v1::LoadAdapterRequest { name: "expert".into(), source, ..Default::default() };
    WorkerControlClient::new(channel).load_adapter(request).await.map(tonic::Response::into_inner)
}

async fn state(channel: Channel) -> Result<v1::WorkerState> {
    let states = WorkerControlClient::new(channel).watch_state(v1::WatchStateRequest {}).await?;
    states.into_inner().message().await?.context("no state")
}

/// Whether the connection came to nothing: what the caller's library makes of that depends on how far it got.
fn broke(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Internal | Code::Unknown)
}

#[tokio::test]
async fn only_the_swarm_gets_in_and_each_role_does_its_own() -> Result<()> {
    let (swarm, other) = (authority()?, authority()?);
    let worker = Worker::start(&swarm).await?;
    let router = worker.channel(&caller(&swarm, &[&swarm], Identity::Router)?)?;
    let operator = worker.channel(&caller(&swarm, &[&swarm], Identity::Operator)?)?;

    // No certificate, and one of another swarm whose owner would trust this worker.
    let plain = Endpoint::from_shared(format!("http://{}", worker.address))?.connect_lazy();
    assert!(broke(&load(plain).await.unwrap_err()));
    let foreign = caller(&other, &[&swarm], Identity::Operator)?;
    let refused = load(worker.channel(&foreign)?).await.unwrap_err();
    assert!(broke(&refused), "{refused}");

    let denied = load(router.clone()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(denied.message(), "/slm.v1.WorkerControl/LoadAdapter: not for the router of a swarm");
    assert!(state(router.clone()).await?.adapters.is_empty());
    load(operator.clone()).await?;
    assert_eq!(state(operator).await?.model, "tiny");
    let mut answer = GenerationClient::new(router).generate(greedy("expert", &[5], 4)).await?.into_inner();
    assert_eq!(ids(&mut answer).await?.len(), 4);
    worker.stop().await
}

/// Callers without pause, each answer over a connection of its own, until `end`.
fn callers(
    address: SocketAddr,
    tls: &Tls,
    answered: &Arc<AtomicU64>,
    turned: &Arc<Notify>,
    end: &Arc<AtomicBool>,
) -> JoinSet<Result<()>> {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (tls, answered, turned, end) = (tls.clone(), Arc::clone(answered), Arc::clone(turned), Arc::clone(end));
        callers.spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let mut client = GenerationClient::new(channel(address, &tls)?);
                let mut answer = client.generate(greedy("tiny", &[5], 8)).await?.into_inner();
                anyhow::ensure!(ids(&mut answer).await?.len() == 8, "half an answer");
                answered.fetch_add(1, Ordering::Relaxed);
                turned.notify_one();
            }
            Ok(())
        });
    }
    callers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_rotate_under_load() -> Result<()> {
    let (old, new) = (authority()?, authority()?);
    let worker = Worker::start(&old).await?;
    let router = caller(&old, &[&old], Identity::Router)?;
    let mut client = GenerationClient::new(worker.channel(&router)?);
    let mut long = client.generate(greedy("tiny", &[5], 200)).await?.into_inner();
    let (answered, turned, end) = <(Arc<AtomicU64>, Arc<Notify>, Arc<AtomicBool>)>::default();
    let mut callers = callers(worker.address, &router, &answered, &turned, &end);

    let both = [&old, &new];
    for (issuer, bundle) in [(&old, &both[..1]), (&old, &both[..]), (&new, &both[..]), (&new, &both[1..])] {
        router.replace(Material::read(&pem(issuer, bundle, Identity::Router)?, Identity::Router)?);
        write(&worker.certificates, &pem(issuer, bundle, Identity::Worker)?)?;
        // The worker has them before the next ones come: it shows who signed it, and lets in whom it should.
        let newest = bundle[bundle.len() - 1];
        let probe = caller(newest, &[issuer], Identity::Router)?;
        worker.reached(&probe, true).await?;
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + 3 * CALLERS as u64 {
            tokio::time::timeout(TURN, turned.notified()).await.context("no answer any more")?;
        }
    }
    let former = caller(&old, &[&new], Identity::Router)?;
    worker.reached(&former, false).await?;
    end.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    assert_eq!(ids(&mut long).await?.len(), 200);
    worker.stop().await
}
