//! gRPC health, for each service: NOT_SERVING until the router was ready once, and again from the shutdown on.
//!
//! In between it stays SERVING: an adapter that is just being replaced is no reason to take every caller away. What is
//! missing at this moment is what `/readyz` says.

use std::{convert::Infallible, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::{HealthReporter, health_reporter},
};

use crate::{
    readiness::{ReadinessGate, readiness},
    view::View,
};

/// The empty name stands for the whole server.
const SERVICES: [&str; 3] = ["", "slm.v1.Generation", "slm.v1.Swarm"];

/// Its task tells the health of the router and ends with it only.
pub(crate) async fn service(
    mut view: watch::Receiver<Arc<View>>,
    gate: ReadinessGate,
) -> (JoinHandle<Infallible>, HealthServer<impl Health>) {
    let (reporter, service) = health_reporter();
    report(&reporter, ServingStatus::NotServing).await;
    let task = tokio::spawn(async move {
        tokio::select! {
            () = gate.withdrawing.cancelled() => {}
            // The borrow of the view ends here: it must not be held across an await.
            became = async { view.wait_for(|view| gate.open(&readiness(view))).await.is_ok() } => {
                if became {
                    tracing::info!("ready");
                    report(&reporter, ServingStatus::Serving).await;
                    gate.withdrawing.cancelled().await;
                }
            }
        }
        report(&reporter, ServingStatus::NotServing).await;
        std::future::pending().await
    });
    (task, service)
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
