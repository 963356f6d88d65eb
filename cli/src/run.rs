//! `slm run`: one answer, printed as it is generated.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use slm_launch::StoreArgs;
use slm_proto::v1::{
    FinishReason, Finished, GenerateRequest, Started, Usage, generate_response::Event, sampling::Constraint,
};

use crate::{
    client::{Client, PromptArgs, ServerArgs, refused},
    exit::Failure,
    explain, output, up,
};

/// Prints one answer as it is generated.
///
/// Asks a running swarm or, with -f, one that is started for this answer and ends after it. Without --temperature the
/// answer is greedy: the same prompt gives the same answer.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm run banking \"put a freeze on my bank account right now\"\n  \
    slm run assistant \"book me a flight to oslo\" --explain\n  \
    slm run smollm2 \"Write a haiku about the sea.\" --temperature 0.8 --seed 7\n  \
    slm run smollm2 \"Name a city.\" --schema city.json --max-tokens 100\n  \
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
    /// Print one JSON object at the end instead of text.
    #[arg(long)]
    json: bool,
    /// Say on standard error how the expert was chosen.
    #[arg(long)]
    explain: bool,
    /// Start the swarm of these manifests for this answer.
    #[arg(short, long, value_name = "DIR", conflicts_with = "server")]
    filename: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it.
pub async fn execute(args: RunArgs) -> Result<(), Failure> {
    let request = args.request()?;
    let Some(filename) = &args.filename else { return answer(&args, &args.server, request).await };
    let swarm = up::embedded(filename, &args.store).await?;
    let answered = answer(&args, &ServerArgs::local(swarm.bound.grpc.to_string()), request).await;
    let ended = swarm.end().await.map_err(up::failure);
    answered.and(ended)
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

/// All of an answer.
#[derive(Default)]
struct Answer {
    started: Started,
    text: String,
    finished: Finished,
}

async fn answer(args: &RunArgs, server: &ServerArgs, request: GenerateRequest) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let mut events = client.generation.generate(request).await.map_err(|status| refused(&status))?.into_inner();
    let mut answer = Answer::default();
    while let Some(response) = events.message().await.map_err(|status| refused(&status))? {
        match response.event {
            Some(Event::Started(started)) => {
                if let (true, Some(decision)) = (args.explain, &started.decision) {
                    anstream::eprint!("{}", explain::words(decision));
                }
                answer.started = started;
            }
            Some(Event::Delta(delta)) => {
                if !args.json {
                    output::text(&delta.text)?;
                }
                answer.text.push_str(&delta.text);
            }
            Some(Event::Finished(finished)) => answer.finished = finished,
            None => {}
        }
    }
    if args.json {
        output::json(&answer.json())
    } else if answer.text.ends_with('\n') {
        Ok(())
    } else {
        output::line("")
    }
}

impl Answer {
    fn json(&self) -> Value {
        let reason = match self.finished.reason() {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Unspecified => "",
        };
        let Usage { prompt_tokens, completion_tokens, cached_tokens } = self.finished.usage.unwrap_or_default();
        json!({
            "request_id": self.started.request_id,
            "expert": self.started.expert.as_ref().map(explain::expert_json),
            "decision": self.started.decision.as_ref().map(explain::json),
            "text": self.text,
            "finish_reason": reason,
            "usage": {
                "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "cached_tokens": cached_tokens,
            },
        })
    }
}
