//! `slm embed`: vectors of texts.

use clap::Args;
use serde_json::json;
use slm_proto::v1::{EmbedInput, EmbedRequest, EmbedResponse, embed_input::Input};

use crate::{
    connection::{Client, ServerArgs, refused},
    swarm::SwarmArgs,
};
use slm_console::{exit::Failure, output};

/// Turns texts into vectors.
///
/// The model has `task: Embed` in its manifest. Standard output has a line for each text: its vector, as a list of numbers.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm embed minilm \"a small model\"\n  slm embed minilm - < lines.txt\n  \
                  slm embed minilm --json --dimensions 64 \"one text\" \"another\"")]
pub struct EmbedArgs {
    /// A model, an adapter or a route.
    name: String,
    /// The texts; `-` reads them from standard input, one a line.
    #[arg(required = true)]
    texts: Vec<String>,
    /// Keep so many numbers of each vector.
    #[arg(long, value_name = "N")]
    dimensions: Option<u32>,
    /// Cut texts that are longer than the model takes, instead of refusing them.
    #[arg(long)]
    truncate: bool,
    /// Print one JSON object with everything.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    swarm: SwarmArgs,
}

/// Runs it.
pub async fn execute(args: EmbedArgs) -> Result<(), Failure> {
    let request = args.request()?;
    args.swarm.ask(async |server| answer(server, request, args.json).await).await
}

impl EmbedArgs {
    fn request(&self) -> Result<EmbedRequest, Failure> {
        let mut texts = self.texts.clone();
        if texts == ["-"] {
            let all = std::io::read_to_string(std::io::stdin())
                .map_err(|error| Failure::failed(format!("reading texts from standard input: {error}")))?;
            texts = all.lines().map(str::to_owned).collect();
        }
        let input = |text| EmbedInput { input: Some(Input::Text(text)) };
        Ok(EmbedRequest {
            model: self.name.clone(),
            inputs: texts.into_iter().map(input).collect(),
            dimensions: self.dimensions,
            truncate: self.truncate,
            ..EmbedRequest::default()
        })
    }
}

async fn answer(server: &ServerArgs, request: EmbedRequest, whole: bool) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let answer = client.embeddings.embed(request).await.map_err(|status| refused(&status))?.into_inner();
    let EmbedResponse { embeddings, prompt_tokens, expert, request_id } = answer;
    if !whole {
        return embeddings.iter().try_for_each(|embedding| output::say(&embedding.values));
    }
    let vectors: Vec<_> = embeddings.into_iter().map(|embedding| embedding.values).collect();
    output::json(&json!({
        "request_id": request_id,
        "expert": expert.as_ref().map(slm_proto::json::expert),
        "embeddings": vectors,
        "usage": { "prompt_tokens": prompt_tokens },
    }))
}
