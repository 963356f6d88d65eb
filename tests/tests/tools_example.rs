//! The expert of `examples/tools`: it calls when it should, talks when it should, and is shown what it was trained on.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use slm_tests::swarm::{Swarm, repository};

struct Example {
    swarm: Swarm,
    tools: Value,
}

impl Example {
    /// The answer to these messages, greedily; the model decides whether to call.
    async fn ask(&self, messages: &Value) -> Result<Value> {
        let body = json!({
            "model": "functions", "messages": messages, "tools": self.tools, "temperature": 0, "max_tokens": 96,
        });
        let url = format!("{}/v1/chat/completions", self.swarm.http);
        let answer: Value = reqwest::Client::new().post(url).json(&body).send().await?.json().await?;
        ensure!(answer["choices"][0]["message"].is_object(), "{answer}");
        Ok(answer)
    }
}

fn read(name: &str) -> Result<Value> {
    let path = repository().join("examples/tools").join(name);
    Ok(serde_json::from_str(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?)?)
}

#[tokio::test]
async fn the_expert_calls_and_talks() -> Result<()> {
    let expected = read("expected.json")?;
    let example = Example { swarm: Swarm::start(&repository().join("examples/tools"))?, tools: read("tools.json")? };
    let calls = expected["calls"].as_array().context("calls")?;
    ensure!(calls.len() >= 6, "{expected}");
    for (index, case) in calls.iter().enumerate() {
        let user = json!({"role": "user", "content": case["prompt"]});
        let answer = example.ask(&json!([user])).await?;
        let (choice, message) = (&answer["choices"][0], &answer["choices"][0]["message"]);
        let call = &message["tool_calls"][0]["function"];
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap_or_default())
            .with_context(|| format!("{case}: {answer}"))?;
        assert_eq!((&call["name"], &arguments), (&case["name"], &case["arguments"]), "{case}");
        assert_eq!((&choice["finish_reason"], &message["content"]), (&json!("tool_calls"), &Value::Null), "{answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], case["prompt_tokens"], "{case}");
        if index % 4 == 0 {
            // The result goes back, and the expert says what was done.
            let result = json!({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "done"});
            let told = example.ask(&json!([user, message, result])).await?;
            let said = &told["choices"][0]["message"];
            ensure!(
                said["tool_calls"].is_null() && said["content"].as_str().is_some_and(|text| text.len() > 3),
                "{told}"
            );
            assert_eq!(told["usage"]["prompt_tokens"], case["prompt_tokens_with_result"], "{case}");
        }
    }
    for case in expected["words"].as_array().context("words")? {
        let answer = example.ask(&json!([{"role": "user", "content": case["prompt"]}])).await?;
        let message = &answer["choices"][0]["message"];
        ensure!(message["tool_calls"].is_null() && message["content"] != "", "{case}: {answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], case["prompt_tokens"], "{case}");
    }
    example.swarm.stop()?;
    Ok(())
}
