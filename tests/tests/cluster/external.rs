//! A model outside of the swarm: what its condition says, and an answer from it by way of the egress. The endpoint is this
//! swarm's own, which speaks the same protocol.

use anyhow::{Result, ensure};
use serde_json::json;
use slm_tests::{
    cluster::{NAMESPACE, RELEASE, apply, client, helm, kubectl, pods, until_reason, wait_ready},
    swarm::Call,
};

const SECRET: &str = "outside-key";

/// The external model, which is `banking` of this swarm.
fn outside() -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: ExternalModel\nmetadata: {{name: outside}}\nspec:\n  \
         url: http://{RELEASE}-slm-swarm-router:8000/v1\n  model: banking\n  secretRef: {{name: {SECRET}}}\n"
    )
}

fn route(policy: &str) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata: {{name: outward}}\nspec:\n  \
         dataPolicy: {policy}\n  fallback: {{kind: ExternalModel, name: outside}}\n"
    )
}

fn secret(hosts: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"token": "not-looked-at"},
        "metadata": {"name": SECRET, "annotations": {"slmswarm.io/hosts": hosts}},
    })
    .to_string()
}

/// Without it, none of its rights are left either: another test counts them.
fn with_egress(enabled: bool) -> Result<()> {
    let names = if enabled { json!([SECRET]) } else { json!([]) };
    let names = format!("egress.credentials.secretNames={names}");
    let enabled = format!("egress.enabled={enabled}");
    let sets = ["--set", &enabled, "--set", "egress.replicas=1", "--set-json", &names];
    let upgrade = ["upgrade", RELEASE, "charts/slm-swarm", "--reuse-values", "--wait", "--timeout=120s"];
    helm(&[&upgrade[..], &sets[..]].concat()).map(|_| ())
}

fn may(verb: &str, resource: &str) -> bool {
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:{RELEASE}-slm-swarm-egress");
    kubectl(&["auth", "can-i", verb, resource, &who, "-q"]).is_ok()
}

/// Never panics: what it made is removed after it.
async fn answers() -> Result<()> {
    with_egress(true)?;
    ensure!(pods("app.kubernetes.io/name=slm-egress")?.iter().all(|pod| pod.ready), "the egress is not ready");
    ensure!(
        may("watch", "externalmodels.slmswarm.io") && may("get", &format!("secrets/{SECRET}")),
        "it may too little"
    );
    for (verb, resource) in [("get", "secrets/slm-swarm-ca"), ("list", "secrets"), ("list", "slmmodels.slmswarm.io")] {
        ensure!(!may(verb, resource), "the egress may {verb} {resource}");
    }

    apply(&outside())?;
    let message = until_reason("ext", "outside", "SecretNotFound").await?;
    ensure!(message.contains(SECRET), "{message}");
    apply(&secret("elsewhere.example.com"))?;
    let host = format!("{RELEASE}-slm-swarm-router:8000");
    let message = until_reason("ext", "outside", "SecretNotUsable").await?;
    ensure!(message.contains(&host), "{message}");
    // A token goes in plain text only where the Secret says so.
    apply(&secret(&host))?;
    let message = until_reason("ext", "outside", "SecretNotUsable").await?;
    ensure!(message.contains("not encrypted"), "{message}");
    apply(&secret(&format!("http://{host}")))?;
    let message = until_reason("ext", "outside", "Ready").await?;
    ensure!(message.contains(&host), "{message}");

    apply(&route("LocalOnly"))?;
    let message = until_reason("sroute", "outward", "UnfitReference").await?;
    ensure!(message.contains("dataPolicy"), "{message}");
    let client = client()?;
    let call = |model: &str| Call::new(model, "put a freeze on my bank account right now");
    ensure!(client.ask(&call("outward")).await.is_err(), "a route that stays inside was answered from outside");
    apply(&route("AllowExternal"))?;
    until_reason("sroute", "outward", "Ready").await?;
    client.until("outward", |model| model.is_some_and(|model| model.ready)).await?;
    let (inside, outside) = (client.ask(&call("banking")).await?, client.ask(&call("outward")).await?);
    ensure!(outside.expert.name == "outside" && outside.text == inside.text, "{outside:?} is not {inside:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_leads_outside_when_its_policy_says_so() -> Result<()> {
    wait_ready()?;
    let answered = answers().await;
    kubectl(&["delete", "sroute/outward", "ext/outside", &format!("secret/{SECRET}"), "--ignore-not-found"])?;
    with_egress(false)?;
    answered
}
