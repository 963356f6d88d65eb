//! `slm tokens`: what the tokenizer and the chat template make of a prompt.

use clap::Args;
use serde_json::json;
use slm_proto::v1::{DetokenizeRequest, GenerateRequest, TokenizeRequest, TokenizeResponse};

use crate::{
    connection::{Client, PromptArgs, ServerArgs, refused},
    swarm::SwarmArgs,
};
use slm_console::{exit::Failure, output};

/// Shows the tokens of a prompt, as a request with it would have them.
///
/// Standard output has a line for each token: its id, and its text in quotes.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  slm tokens smollm2 \"hello\"\n  slm tokens smollm2 --raw - < prompt.txt | wc -l\n  \
                  slm tokens smollm2 --ids \"504 2365\""
)]
pub struct TokensArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    /// The prompt is token ids; print their text.
    #[arg(long, conflicts_with_all = ["system", "raw", "json"])]
    ids: bool,
    /// Print one JSON object with everything, the text that the chat template makes included.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    swarm: SwarmArgs,
}

/// Runs it.
pub async fn execute(args: TokensArgs) -> Result<(), Failure> {
    let TokensArgs { mut prompt, ids, json, swarm } = args;
    // Token ids are read as raw text.
    prompt.raw |= ids;
    let request = prompt.request()?;
    if ids {
        let request = decoding(request)?;
        return swarm.ask(async |server| decode(server, request).await).await;
    }
    swarm.ask(async |server| show(server, request, json).await).await
}

fn decoding(request: GenerateRequest) -> Result<DetokenizeRequest, Failure> {
    use slm_proto::v1::generate_request::Input::Prompt;
    let Some(Prompt(text)) = request.input else { return Err(Failure::usage("no token ids")) };
    let words = text.split(|letter: char| letter.is_whitespace() || letter == ',').filter(|word| !word.is_empty());
    let id =
        |word: &str| word.parse().map_err(|_| Failure::usage(format!("`{word}` is no token id: a number from 0 on")));
    let token_ids = words.map(id).collect::<Result<_, _>>()?;
    Ok(DetokenizeRequest { model: request.model, token_ids, metadata: request.metadata, ..Default::default() })
}

async fn decode(server: &ServerArgs, request: DetokenizeRequest) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let answer = client.tokens.detokenize(request).await.map_err(|status| refused(&status))?.into_inner();
    output::line(&answer.text)
}

async fn show(server: &ServerArgs, request: GenerateRequest, whole: bool) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let request = TokenizeRequest { request: Some(request), pieces: true };
    let answer = client.tokens.tokenize(request).await.map_err(|status| refused(&status))?.into_inner();
    let TokenizeResponse { token_ids, pieces, text, context_length, expert, request_id } = answer;
    let mut tokens = token_ids.iter().zip(&pieces).map(|(id, piece)| (id, String::from_utf8_lossy(&piece.bytes)));
    if !whole {
        return tokens.try_for_each(|(id, text)| output::line(&format!("{id:>8}  {text:?}")));
    }
    let tokens: Vec<_> = tokens.map(|(id, text)| json!({ "id": id, "text": text })).collect();
    output::json(&json!({
        "request_id": request_id,
        "expert": expert.as_ref().map(slm_proto::json::expert),
        "context_length": context_length,
        "count": token_ids.len(),
        "prompt": text,
        "tokens": tokens,
    }))
}
