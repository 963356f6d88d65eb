//! The state stream of a worker.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use slm_proto::v1::{WatchStateRequest, WorkerState, worker_control_client::WorkerControlClient};

/// Far beyond what any condition takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The current state of a worker.
pub async fn worker_state(worker: &str) -> Result<WorkerState> {
    worker_state_until(worker, |_| true).await
}

/// Follows a worker's own state stream until `condition` holds.
pub async fn worker_state_until(worker: &str, condition: impl Fn(&WorkerState) -> bool) -> Result<WorkerState> {
    let mut client = WorkerControlClient::connect(worker.to_owned()).await.with_context(|| worker.to_owned())?;
    let mut states = client.watch_state(WatchStateRequest {}).await?.into_inner();
    let mut last = None;
    let follow = async {
        while let Some(state) = states.next().await {
            let state = state?;
            if condition(&state) {
                return Ok(state);
            }
            last = Some(state);
        }
        bail!("{worker}: the state stream ended")
    };
    match tokio::time::timeout(LIMIT, follow).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("{worker}: not in {LIMIT:?}; last {last:?}"),
    }
}
