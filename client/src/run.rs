//! `slm run`: one answer, printed as it is generated.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use slm_proto::v1::{
    Completion, FinishReason, GenerateRequest, ToolCall, Usage, generate_response::Event, sampling::Constraint,
};

use crate::{
    connection::{Client, PromptArgs, ServerArgs, refused},
    explain,
    swarm::SwarmArgs,
    tools,
};
use slm_console::{exit::Failure, output};

/// Prints one answer as it is generated.
///
/// Asks a running swarm or, with -f, one that is started for this answer and ends after it. Without --temperature the
/// answer is greedy: the same prompt gives the same answer.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm run banking \"put a freeze on my bank account right now\"\n  \
    slm run assistant \"book me a flight to oslo\" --explain\n  \
    slm run smollm2 \"Write a haiku about the sea.\" --temperature 0.8 --seed 7\n  \
    slm run smollm2 \"Name a city.\" --schema city.json --max-tokens 100\n  \
    slm run smollm2 \"Add 2 and 3.\" --tool add.json --tool-choice required\n  \
    slm run -f examples/quickstart kitchen \"find me a good recipe for onion soup\"")]
pub struct RunArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    /// Tokens to generate at most [default: what the context has left].
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token always; up to 2.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Sample from the likeliest tokens whose probabilities reach P together.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sample from the K likeliest tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Sample from tokens at least this fraction as likely as the likeliest.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divides the logits of tokens seen before.
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Makes a sampled answer repeatable.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// A file with a JSON Schema: the answer is a JSON document that it describes, unless --max-tokens cuts it.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// A file with a tool, or a list of tools, as JSON; the answer's calls are printed as `NAME ARGUMENTS`, a line each.
    #[arg(long, value_name = "FILE", conflicts_with = "schema")]
    tool: Option<PathBuf>,
    /// auto, none, required, or the name of the tool to call.
    #[arg(long, value_name = "CHOICE", requires = "tool")]
    tool_choice: Option<String>,
    /// Print one JSON object at the end instead of text.
    #[arg(long)]
    json: bool,
    /// Say on standard error how the expert was chosen.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    swarm: SwarmArgs,
}

/// Runs it.
pub async fn execute(args: RunArgs) -> Result<(), Failure> {
    let request = args.request()?;
    args.swarm.ask(async |server| answer(&args, server, request).await).await
}

impl RunArgs {
    fn request(&self) -> Result<GenerateRequest, Failure> {
        let mut request = self.prompt.request()?;
        let sampling = request.sampling.get_or_insert_default();
        sampling.temperature = Some(self.temperature);
        sampling.top_p = self.top_p;
        sampling.top_k = self.top_k;
        sampling.min_p = self.min_p;
        sampling.repetition_penalty = self.repetition_penalty;
        sampling.seed = self.seed;
        sampling.constraint = self.schema.as_deref().map(schema).transpose()?;
        request.tools = self.tool.as_deref().map(tools::read).transpose()?.unwrap_or_default();
        request.tool_choice = self.tool_choice.as_deref().map(tools::choice);
        request.max_tokens = self.max_tokens;
        request.stop.clone_from(&self.stop);
        request.explain = self.explain;
        Ok(request)
    }
}

fn schema(file: &Path) -> Result<Constraint, Failure> {
    let read = std::fs::read_to_string(file);
    read.map(Constraint::JsonSchema).map_err(|error| {
        Failure::failed(format!("--schema {}: {error}; name a file with a JSON Schema", file.display()))
    })
}

async fn answer(args: &RunArgs, server: &ServerArgs, request: GenerateRequest) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let mut events = client.generation.generate(request).await.map_err(|status| refused(&status))?.into_inner();
    let mut answer = Completion::default();
    while let Some(response) = events.message().await.map_err(|status| refused(&status))? {
        match response.event {
            Some(Event::Started(started)) => {
                if let (true, Some(decision)) = (args.explain, &started.decision) {
                    anstream::eprint!("{}", explain::words(decision));
                }
                answer.started = Some(started);
            }
            Some(Event::Delta(delta)) => {
                if !args.json {
                    let begins = answer.text.is_empty() && answer.tool_calls.is_empty();
                    let says = !delta.text.is_empty() || !delta.tool_calls.is_empty();
                    let thought = !answer.reasoning.is_empty() || !delta.reasoning.is_empty();
                    output::thought(&delta.reasoning, thought && begins && says);
                    output::text(&delta.text)?;
                }
                answer.add(delta);
            }
            Some(Event::Finished(finished)) => answer.finish(finished),
            None => {}
        }
    }
    if args.json {
        return output::json(&json(&answer));
    }
    if !answer.text.is_empty() && !answer.text.ends_with('\n') || answer.tool_calls.is_empty() && answer.text.is_empty()
    {
        output::line("")?;
    }
    answer.tool_calls.iter().try_for_each(|call| output::line(&tools::line(call)))
}

fn json(answer: &Completion) -> Value {
    let reason = match answer.reason() {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Unspecified => "",
    };
    let started = answer.started.clone().unwrap_or_default();
    let Usage { prompt_tokens, completion_tokens, cached_tokens } = answer.usage.unwrap_or_default();
    let mut shown = json!({
        "request_id": started.request_id,
        "expert": started.expert.as_ref().map(slm_proto::json::expert),
        "decision": started.decision.as_ref().map(slm_proto::json::decision),
        "text": answer.text,
        "finish_reason": reason,
        "usage": {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "cached_tokens": cached_tokens,
        },
    });
    if !answer.reasoning.is_empty() {
        shown["reasoning"] = answer.reasoning.as_str().into();
    }
    if !answer.tool_calls.is_empty() {
        let call = |call: &ToolCall| json!({ "id": call.id, "name": call.name, "arguments": call.arguments });
        shown["tool_calls"] = answer.tool_calls.iter().map(call).collect();
    }
    shown
}
