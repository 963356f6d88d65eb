//! Callers at a fixed rate.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::StreamExt as _;
use slm_proto::v1::{GenerateRequest, generation_client::GenerationClient};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::{Status, transport::Channel};

/// What a timer can do.
const TICK: Duration = Duration::from_millis(1);

/// Times of answers, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    times: Vec<f64>,
    failed: usize,
}

impl Latencies {
    pub(crate) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.failed += other.failed;
    }

    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_by(f64::total_cmp);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A place in a list.
        let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(place).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} | {:.2}", self.quantile(0.5), self.quantile(0.99))
    }
}

/// Sends requests at `rate` a second for that time, the first with that number, and waits for all answers. A request is due at a tick of
/// the clock, with others; its latency counts from there, so that one that could not be sent in time is not better for it.
pub(crate) async fn send(
    channel: &Channel,
    request: fn(usize) -> GenerateRequest,
    first: usize,
    rate: u32,
    time: Duration,
) -> Result<Latencies> {
    let client = GenerationClient::new(channel.clone());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut sent) = (Instant::now(), 0_usize);
    let mut open = JoinSet::new();
    let mut latencies = Latencies::default();
    let mut note = |done: Result<Result<f64, Status>, _>| match done {
        Ok(Ok(time)) => latencies.times.push(time),
        _ => latencies.failed += 1,
    };
    while begun.elapsed() < time {
        let due = ticks.tick().await.into_std();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count of requests.
        let wanted = (due.saturating_duration_since(begun).as_secs_f64() * f64::from(rate)) as usize;
        while sent < wanted {
            let (mut client, request) = (client.clone(), request(first + sent));
            open.spawn(async move {
                let mut answer = client.generate(request).await?.into_inner();
                while let Some(event) = answer.next().await {
                    event?;
                }
                Ok(due.elapsed().as_secs_f64() * 1e3)
            });
            sent += 1;
        }
        while let Some(done) = open.try_join_next() {
            note(done);
        }
    }
    while let Some(done) = open.join_next().await {
        note(done);
    }
    Ok(latencies)
}
