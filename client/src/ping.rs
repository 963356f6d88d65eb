//! `slm ping`: the health check of a swarm.

use clap::Args;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::connection::{ServerArgs, refused};
use slm_console::{exit::Failure, output};

/// Asks whether a swarm's endpoint takes requests. Needs no token.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm ping\n  slm ping --server https://models.example.com:50051")]
pub struct PingArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs it.
pub async fn execute(args: PingArgs) -> Result<(), Failure> {
    let request = HealthCheckRequest { service: "slm.v1.Generation".to_owned() };
    let answer = HealthClient::new(args.server.channel().await?).check(request).await;
    match answer.map_err(|status| refused(&status))?.into_inner().status() {
        ServingStatus::Serving => output::text(&format!("{} serves\n", args.server.server)),
        _ => Err(Failure::failed(format!(
            "{} answers, but is not ready for requests; try again later",
            args.server.server
        ))),
    }
}
