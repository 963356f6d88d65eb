//! The way to a running swarm, over gRPC.

use std::time::Duration;

use slm_proto::v1::{
    ExpertKind, GenerateRequest, Message, Messages, Sampling, generate_request::Input,
    generation_client::GenerationClient, swarm_client::SwarmClient,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::exit::Failure;

/// The loopback answers at once, and so does a network that works.
const CONNECT: Duration = Duration::from_secs(5);

/// Which swarm to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address of the swarm's gRPC endpoint.
    #[arg(long, value_name = "ADDRESS", env = "SLM_SERVER", default_value = "127.0.0.1:50051")]
    pub server: String,
}

/// A connected swarm.
#[derive(Clone, Debug)]
pub struct Client {
    /// Answers.
    pub generation: GenerationClient<Channel>,
    /// What it holds, and how it decides.
    pub swarm: SwarmClient<Channel>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing answers there.
    pub async fn connect(server: &str) -> Result<Self, Failure> {
        let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let wrong =
            |error| Failure::usage(format!("--server {server}: {error}; expected an address such as 127.0.0.1:50051"));
        let endpoint = Endpoint::from_shared(url).map_err(wrong)?.connect_timeout(CONNECT);
        let channel = endpoint.connect().await.map_err(|error| {
            let reason = root_cause(&error);
            Failure::failed(format!(
                "no swarm answers at {server}: {reason}; start one by `slm up -f DIR`, or name another with --server"
            ))
        })?;
        Ok(Self { generation: GenerationClient::new(channel.clone()), swarm: SwarmClient::new(channel) })
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// A status, for people: the message says it all but what kind of trouble it is.
pub fn refused(status: &Status) -> Failure {
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match status.code() {
        Code::Unavailable => Failure::failed(format!("not available now: {message}")),
        Code::ResourceExhausted => Failure::failed(format!("too busy now: {message}")),
        _ => Failure::failed(message),
    }
}

/// What to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct PromptArgs {
    /// A model, an adapter or a route.
    pub name: String,
    /// What to answer; `-` reads it from standard input.
    pub prompt: String,
    /// Put before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Continue the prompt as it is, without the model's chat template.
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    /// What route rules see as `metadata`; may be given several times.
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = key_value)]
    pub metadata: Vec<(String, String)>,
}

impl PromptArgs {
    /// The request, with everything else unset.
    ///
    /// # Errors
    /// When standard input is not text.
    pub fn request(&self) -> Result<GenerateRequest, Failure> {
        let prompt = if self.prompt == "-" {
            std::io::read_to_string(std::io::stdin())
                .map_err(|error| Failure::failed(format!("reading the prompt from standard input: {error}")))?
        } else {
            self.prompt.clone()
        };
        let input = if self.raw {
            Input::Prompt(prompt)
        } else {
            let turn = |role: &str, content: String| Message { role: role.to_owned(), content };
            let system = self.system.clone().map(|system| turn("system", system));
            Input::Messages(Messages { messages: system.into_iter().chain([turn("user", prompt)]).collect() })
        };
        Ok(GenerateRequest {
            model: self.name.clone(),
            input: Some(input),
            sampling: Some(Sampling::default()),
            metadata: self.metadata.iter().cloned().collect(),
            ..GenerateRequest::default()
        })
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "expected KEY=VALUE".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// The name of a kind of expert.
pub fn kind_name(kind: ExpertKind) -> &'static str {
    match kind {
        ExpertKind::SlmModel => "SlmModel",
        ExpertKind::LoraAdapter => "LoraAdapter",
        ExpertKind::Unspecified => "",
    }
}
