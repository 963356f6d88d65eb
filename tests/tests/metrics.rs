//! The chart's alerts and dashboard ask for metrics that there are.

use std::{collections::BTreeSet, net::TcpListener};

use anyhow::{Context, Result};
use slm_tests::{
    swarm::{Folder, Swarm},
    tiny::{Worker, greedy, ids},
};

const ALERTS: &str = include_str!("../../charts/slm-swarm/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../charts/slm-swarm/monitoring/dashboard.json");
/// What is registered: by processes that run in a cluster alone, and what has no series before somebody asks.
const REGISTERED: [(&str, &str); 4] = [
    ("slm_router_", include_str!("../../router/src/metrics.rs")),
    ("slm_worker_", include_str!("../../worker/src/adapters/metrics.rs")),
    ("slm_operator_", include_str!("../../operator/src/metrics.rs")),
    ("slm_egress_", include_str!("../../egress/src/metrics.rs")),
];

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let named =
        |word: &&str| word.starts_with("slm_") || word.starts_with("gen_ai_server") || word.starts_with("vllm:");
    words.filter(named).collect()
}

/// The name under which a metric is registered: that of its series without what the format adds.
fn registered(name: &str) -> &str {
    let added = ["_bucket", "_count", "_sum", "_total"];
    added.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

async fn scrape(url: String) -> Result<String> {
    Ok(reqwest::get(url).await?.text().await?)
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_there_are() -> Result<()> {
    let probes = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut worker = Worker::start(|config| config.probes = Some(probes)).await?;
    ids(&mut worker.generation.generate(greedy("tiny", &[3, 17], 4)).await?.into_inner()).await?;
    let of_worker = scrape(format!("http://{probes}/metrics")).await?;
    for line in [
        "slm_worker_expert_requests_total{expert=\"tiny\",outcome=\"ok\"} 1",
        "slm_worker_expert_tokens_total{expert=\"tiny\",kind=\"completion\"} 4",
        "gen_ai_server_time_to_first_token_seconds_count{gen_ai_request_model=\"tiny\"} 1",
        "vllm:num_requests_running 0",
    ] {
        assert!(of_worker.contains(line), "{line} in\n{of_worker}");
    }
    worker.stop().await?;

    let folder = Folder::quickstart("precision: Int4, maxSequences: 4, contextLength: 256")?;
    let swarm = Swarm::start(folder.path())?;
    let of_router = scrape(format!("{}/metrics", swarm.http)).await?;
    let live = [of_worker, of_router].concat();
    let asked: BTreeSet<&str> = names(ALERTS).into_iter().chain(names(DASHBOARD)).collect();
    assert!(asked.len() > 20, "{asked:?}");
    for name in asked {
        let own = registered(name);
        let mut named = REGISTERED.iter().filter_map(|(prefix, source)| Some((own.strip_prefix(prefix)?, source)));
        let registered = named.any(|(rest, source)| source.contains(&format!("\"{rest}\"")));
        assert!(registered || live.contains(&format!("# TYPE {own} ")), "nothing has the metric {name}");
    }
    Ok(())
}

#[test]
fn every_alert_has_a_line_in_the_runbook() -> Result<()> {
    let alerts = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let runbook = include_str!("../../docs/operations.md");
    for alert in alerts {
        let line = runbook.lines().find(|line| line.contains(alert));
        line.with_context(|| format!("docs/operations.md says nothing of {alert}"))?;
    }
    Ok(())
}
