//! Whoever asks for a call gets one.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use slm_proto::{
    trailers,
    v1::{
        Completion, FinishReason, GenerateRequest, Message, Messages, Sampling, Tool, ToolChoice, ToolChoiceMode,
        generate_request::Input, generate_response::Event,
    },
};
use slm_tests::{
    smollm2::{MODEL, worker},
    tiny::Worker,
};
use tonic::{Code, Status};

use super::sets::{prompts, sets, tool};

/// Of the two hundred, unless `SLM_TOOL_PROMPTS` says how many: a call takes a second.
const PROMPTS: usize = 20;

fn request(prompt: &str, seed: u64, tools: Vec<Tool>, mode: ToolChoiceMode) -> GenerateRequest {
    let message = Message { role: "user".into(), content: prompt.into(), ..Default::default() };
    GenerateRequest {
        model: MODEL.into(),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        sampling: Some(Sampling { temperature: Some(1.0), seed: Some(seed), ..Default::default() }),
        // Sixteen calls, spelled in small tokens.
        max_tokens: Some(1500),
        tools,
        tool_choice: Some(ToolChoice { mode: mode.into(), name: String::new() }),
        ..Default::default()
    }
}

async fn complete(worker: &Worker, request: GenerateRequest) -> Result<Completion, Status> {
    worker.generation.clone().complete(request).await.map(tonic::Response::into_inner)
}

/// Every call is of a tool, with arguments of its schema.
fn check(answer: &Completion, set: &[(&str, Value)]) -> Result<()> {
    ensure!(answer.reason() == FinishReason::ToolCalls && answer.text.is_empty(), "{answer:?}");
    ensure!(!answer.tool_calls.is_empty(), "{answer:?}");
    for call in &answer.tool_calls {
        let (_, schema) = set.iter().find(|(name, _)| *name == call.name).with_context(|| format!("{call:?}"))?;
        let arguments: Value = serde_json::from_str(&call.arguments).with_context(|| call.arguments.clone())?;
        ensure!(arguments.is_object() && jsonschema::is_valid(schema, &arguments), "{call:?} is not of {schema}");
    }
    Ok(())
}

async fn streamed(worker: &Worker, request: GenerateRequest) -> Result<Completion> {
    let mut events = worker.generation.clone().generate(request).await?.into_inner();
    let mut whole = Completion::default();
    while let Some(response) = events.message().await? {
        match response.event {
            Some(Event::Delta(delta)) => whole.add(delta),
            Some(Event::Finished(finished)) => whole.finish(finished),
            _ => {}
        }
    }
    Ok(whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_has_to_be_is_valid() -> Result<()> {
    let (worker, sets) = (worker(true).await?, sets());
    let last = sets.len() - 1;
    let ask = |(index, prompt): (usize, String)| {
        let (worker, set, kind) = (&worker, &sets[index % sets.len()], index % sets.len());
        async move {
            let mut asked = request(&prompt, index as u64, set.iter().map(tool).collect(), ToolChoiceMode::Required);
            asked.parallel_tool_calls = Some(kind == last && index % 2 == 0);
            let answer = complete(worker, asked.clone()).await?;
            check(&answer, set).with_context(|| prompt.clone())?;
            if index % 10 <= last {
                let calls = |answer: &Completion| {
                    let calls = answer.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone()));
                    calls.collect::<Vec<_>>()
                };
                let again = streamed(worker, asked).await?;
                ensure!(calls(&again) == calls(&answer) && again.reason == answer.reason, "{again:?}\n{answer:?}");
            }
            anyhow::Ok(answer.tool_calls.len())
        }
    };
    let wanted = std::env::var("SLM_TOOL_PROMPTS").map_or(Ok(PROMPTS), |wanted| wanted.parse())?;
    let prompts = prompts();
    assert!(wanted >= PROMPTS && wanted <= prompts.len(), "SLM_TOOL_PROMPTS: {PROMPTS} to {}", prompts.len());
    let counts: Vec<usize> =
        stream::iter(prompts.into_iter().take(wanted).enumerate()).map(ask).buffer_unordered(8).try_collect().await?;
    println!("{} answers with {} calls", counts.len(), counts.iter().sum::<usize>());
    assert!(counts.len() == wanted && counts.iter().any(|count| *count > 1), "{counts:?}");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_is_kept() -> Result<()> {
    let worker = worker(true).await?;
    let set = &sets()[1];
    let tools = || set.iter().map(tool).collect::<Vec<_>>();
    for seed in 0..4 {
        let mut named = request("What is 12 times 3?", seed, tools(), ToolChoiceMode::Required);
        named.tool_choice = Some(ToolChoice { mode: ToolChoiceMode::Required.into(), name: "multiply".into() });
        let answer = complete(&worker, named).await?;
        check(&answer, set)?;
        assert!(answer.tool_calls.len() == 1 && answer.tool_calls[0].name == "multiply", "{answer:?}");
        let none = complete(&worker, request("What is 12 times 3?", seed, tools(), ToolChoiceMode::None)).await?;
        assert!(none.tool_calls.is_empty(), "{none:?}");
        // Text, or a valid call.
        let strict = tools().into_iter().map(|tool| Tool { strict: true, ..tool }).collect();
        let mut auto = request("What is 12 times 3? Call multiply.", seed, strict, ToolChoiceMode::Auto);
        auto.max_tokens = Some(100);
        let auto = complete(&worker, auto).await?;
        assert_ne!(auto.text.is_empty(), auto.tool_calls.is_empty(), "{auto:?}");
        if !auto.tool_calls.is_empty() {
            check(&auto, set)?;
        }
    }
    worker.stop().await
}

/// Before its arguments a call that is cut is text; within them it is a call, with what came of them, and stays one in a stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_cut() -> Result<()> {
    let worker = worker(true).await?;
    let mut asked = request("Mail Anna.", 1, sets()[2].iter().map(tool).collect(), ToolChoiceMode::Required);
    asked.tool_choice = Some(ToolChoice { mode: ToolChoiceMode::Required.into(), name: "send_mail".into() });
    let whole = complete(&worker, asked.clone()).await?;
    asked.max_tokens = Some(4);
    let cut = complete(&worker, asked.clone()).await?;
    assert!(cut.reason() == FinishReason::Length && cut.tool_calls.is_empty() && !cut.text.is_empty(), "{cut:?}");
    asked.max_tokens = Some(whole.usage.context("usage")?.completion_tokens - 2);
    let cut = complete(&worker, asked.clone()).await?;
    let (call, half) = (&whole.tool_calls[0], &cut.tool_calls[0]);
    assert!(cut.reason() == FinishReason::Length && cut.text.is_empty() && half.name == call.name, "{cut:?}");
    assert!(call.arguments.starts_with(&half.arguments) && call.arguments != half.arguments, "{half:?} of {call:?}");
    let again = streamed(&worker, asked.clone()).await?;
    assert_eq!((&again.tool_calls[0].arguments, again.reason()), (&half.arguments, FinishReason::Length));
    // A stop string ends an answer within a call, too; such an answer has not called.
    asked.stop = vec!["\"to\"".to_owned()];
    let stopped = complete(&worker, asked).await?;
    assert_eq!((stopped.reason(), stopped.tool_calls[0].arguments.as_str()), (FinishReason::Stop, "{"), "{stopped:?}");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_back_with_their_results() -> Result<()> {
    let worker = worker(true).await?;
    let set = &sets()[0];
    let tools: Vec<Tool> = set.iter().map(tool).collect();
    let mut asked = request("How is the weather in Oslo?", 1, tools.clone(), ToolChoiceMode::Required);
    asked.parallel_tool_calls = Some(false);
    let called = complete(&worker, asked.clone()).await?;
    let Some(Input::Messages(messages)) = &mut asked.input else { panic!("messages") };
    messages.messages.push(Message {
        role: "assistant".into(),
        tool_calls: called.tool_calls.clone(),
        ..Default::default()
    });
    messages.messages.push(Message {
        role: "tool".into(),
        content: "18 degrees, sunny".into(),
        tool_call_id: called.tool_calls[0].id.clone(),
        ..Default::default()
    });
    asked.tool_choice = None;
    let before = called.usage.context("usage")?.prompt_tokens;
    let answer = complete(&worker, asked.clone()).await?;
    assert!(answer.usage.context("usage")?.prompt_tokens > before + 20, "{answer:?}");
    let Some(Input::Messages(messages)) = &mut asked.input else { panic!("messages") };
    messages.messages.remove(1);
    let refused = complete(&worker, asked).await.expect_err("a result without its call");
    assert!(refused.message().starts_with("messages[1].tool_call_id names the call `"), "{refused:?}");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_field_and_the_place() -> Result<()> {
    let worker = worker(true).await?;
    let one = |name: &'static str, schema: Value| vec![tool(&(name, schema))];
    let of_a = |schema: Value| one("f", json!({"type": "object", "properties": {"a": schema}}));
    let many = (0..129).map(|index| Tool { name: format!("f{index}"), ..Default::default() }).collect();
    let required = ToolChoiceMode::Required;
    for (tools, field, message) in [
        (one("", json!({})), "tools[0].name", "is missing"),
        (one("a b", json!({})), "tools[0].name", "has to be 1 to 64 of"),
        ([one("f", json!({})), one("f", json!({}))].concat(), "tools[1].name", "names have to differ"),
        (many, "tools", "129 entries; at most 128"),
        (of_a(json!({"not": {}})), "tools[0].parameters", "at /properties/a/not: `not` is not supported"),
        (of_a(json!({"type": "strin"})), "tools[0].parameters", "at /properties/a: Invalid type"),
        (one("f", json!({"type": "array"})), "tools[0].parameters", "at /type: it has to be \"object\""),
        (of_a(json!({"description": "x".repeat(600_000)})), "tools", "bytes of parameters; at most 524288"),
        (Vec::new(), "tool_choice", "there are no `tools`"),
    ] {
        let refused = complete(&worker, request("x", 1, tools, required)).await.expect_err(message);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().starts_with(field) && refused.message().contains(message), "{refused:?}");
        assert_eq!(refused.metadata().get(trailers::ERROR_FIELD).map(|at| at.as_bytes()), Some(field.as_bytes()));
    }
    let mut raw = request("x", 1, one("f", json!({})), ToolChoiceMode::Auto);
    raw.input = Some(Input::Prompt("x".into()));
    let refused = complete(&worker, raw).await.expect_err("a raw prompt");
    assert_eq!(refused.message(), "tools are shown by the chat template; send messages");
    let mut both = request("x", 1, one("f", json!({})), ToolChoiceMode::Auto);
    both.sampling.get_or_insert_default().constraint = Some(slm_proto::v1::sampling::Constraint::Regex("a".into()));
    let refused = complete(&worker, both).await.expect_err("a constraint");
    assert!(refused.message().starts_with("tools cannot be called by an answer with a constraint"), "{refused:?}");
    worker.stop().await
}
