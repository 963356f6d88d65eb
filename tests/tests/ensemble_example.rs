//! The route of `examples/ensemble`: three experts answer in one batch, and a candidate in the shadow is compared.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use slm_tests::swarm::{Swarm, repository};

#[tokio::test]
async fn the_expert_of_a_text_is_the_most_confident() -> Result<()> {
    let swarm = Swarm::start(&repository().join("examples/ensemble"))?;
    let client = reqwest::Client::new();
    for (text, expert, label) in [
        ("put a freeze on my bank account right now", "banking", "freeze_account"),
        ("please move two hundred dollars from my savings to my checking account", "banking", "transfer"),
    ] {
        let messages = json!([{ "role": "user", "content": text }]);
        let body =
            json!({ "model": "team", "messages": messages, "temperature": 0, "max_tokens": 12, "explain": true });
        let url = format!("{}/v1/chat/completions", swarm.http);
        let answer: Value = client.post(url).json(&body).send().await?.json().await?;
        let said = answer["choices"][0]["message"]["content"].as_str().map(str::trim);
        let decision = &answer["x_slm_decision"];
        ensure!(said == Some(label) && decision["chosen"]["name"] == expert, "{answer}");
        let reason = decision["reason"].as_str().context("a reason")?;
        ensure!(
            reason.starts_with("no rule matched: ensemble of 3; 3 of 3 answered, the most confident one"),
            "{reason}"
        );
    }
    // A tenth of the requests is copied.
    for number in 0..60 {
        let body = json!({ "model": "team", "prompt": "hello", "max_tokens": 1 });
        let url = format!("{}/v1/completions", swarm.http);
        let answer = client.post(url).header("x-request-id", format!("copy-{number}")).json(&body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
    }
    loop {
        let metrics = client.get(format!("{}/metrics", swarm.http)).send().await?.text().await?;
        let copies = metrics.lines().filter(|line| line.starts_with("slm_router_shadow_total{route=\"team\""));
        let compared = copies.filter(|line| line.contains("\"agree\"") || line.contains("\"differ\""));
        if compared.count() > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    swarm.stop()?;
    Ok(())
}
