//! Callers that never pause, to see what a fault does to them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{router, wait_ready};
use crate::swarm::{Call, Client};

/// Streams that run at once.
const STREAMS: usize = 8;
/// Tokens of an answer.
const TOKENS: u32 = 24;

/// Eight callers, each with a connection of its own.
#[derive(Debug)]
pub struct Steady {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    callers: JoinSet<()>,
}

/// The result of their calls.
#[derive(Debug)]
pub struct LoadReport {
    /// Answers, whole and as they should be.
    pub answers: usize,
    /// Calls that failed, with the reason.
    pub failures: Vec<String>,
}

impl Steady {
    /// Begins with the quickstart's `banking`, once everything is Ready.
    pub async fn begin() -> Result<Self> {
        wait_ready()?;
        Self::start(&format!("http://{}", router("grpc")?), "banking").await
    }

    /// Begins. Every answer of `model` is compared with what it says alone.
    pub async fn start(address: &str, model: &str) -> Result<Self> {
        let call = Call::long(model, "put a freeze on my bank account right now", TOKENS);
        let expected = Arc::new(Client::new(address)?.ask(&call).await?.text);
        let mut steady =
            Self { over: Arc::default(), answers: Arc::default(), failures: Arc::default(), callers: JoinSet::new() };
        for _ in 0..STREAMS {
            let (client, call, expected) = (Client::new(address)?, call.clone(), Arc::clone(&expected));
            let (over, answers, failures) =
                (Arc::clone(&steady.over), Arc::clone(&steady.answers), Arc::clone(&steady.failures));
            steady.callers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let failure = match client.ask(&call).await {
                        Ok(answer) if answer.text == *expected => {
                            answers.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        // It was never sent: its connection was told to go away. gRPC clients send such a call again by
                        // themselves (transparent retries); tonic's leaves that to its user.
                        Err(error) if format!("{error:?}").contains("hyper::Error(Canceled") => continue,
                        Ok(answer) => format!("another answer: {:?}", answer.text),
                        Err(error) => format!("{error:#}"),
                    };
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                }
            });
        }
        steady.more(STREAMS).await;
        Ok(steady)
    }

    /// Waits for so many more answers: whatever happened, callers are served.
    pub async fn more(&self, answers: usize) {
        let (wanted, begun) = (self.answers.load(Ordering::Relaxed) + answers, Instant::now());
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while self.answers.load(Ordering::Relaxed) < wanted {
            ticks.tick().await;
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "no {answers} answers in two minutes: {:?}",
                self.failed()
            );
        }
    }

    /// Calls that failed so far.
    pub fn failed(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends, and tells.
    pub async fn stop(mut self) -> LoadReport {
        self.over.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
        LoadReport { answers: self.answers.load(Ordering::Relaxed), failures: self.failed() }
    }
}
