//! The gRPC client of a running swarm, and the arguments that say which one.

use std::{error::Error, path::PathBuf, time::Duration};

use slm_proto::v1::{
    GenerateRequest, Message, Messages, Sampling, embeddings_client::EmbeddingsClient, generate_request::Input,
    generation_client::GenerationClient, swarm_client::SwarmClient, tokens_client::TokensClient,
};
use slm_tls::{cause::innermost, outward::Trust};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use slm_console::exit::Failure;

/// Time to connect: loopback answers at once, and so does a network that works.
const CONNECT: Duration = Duration::from_secs(5);

/// Bound on an answer with vectors, or tokens.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Address, certificate and token of a swarm.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address of the swarm's gRPC endpoint; https://HOST:PORT speaks TLS.
    #[arg(long, value_name = "ADDRESS", env = "SLM_SERVER", default_value = "127.0.0.1:50051")]
    pub server: String,
    /// PEM file with the endpoint's certificate: trust exactly this one, under any address. Without it, https addresses
    /// need one that this system trusts.
    #[arg(long, value_name = "FILE", env = "SLM_SERVER_CERTIFICATE")]
    pub certificate: Option<PathBuf>,
    /// Token for an endpoint that needs one. On the command line others on this machine can read it: set the variable.
    #[arg(long, value_name = "TOKEN", env = "SLM_TOKEN", hide_env_values = true, value_parser = bearer)]
    pub token: Option<Bearer>,
}

/// The `authorization` metadata of every request.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

fn bearer(token: &str) -> Result<Bearer, String> {
    let value = format!("Bearer {}", token.trim()).parse::<MetadataValue<Ascii>>();
    let mut value = value.map_err(|_| "a token has no line ends and no letters beyond ASCII".to_owned())?;
    // Not for logs.
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

impl ServerArgs {
    /// A swarm on this machine.
    #[must_use]
    pub fn local(server: String) -> Self {
        Self { server, certificate: None, token: None }
    }

    /// An open connection.
    ///
    /// # Errors
    /// No answer at the address, or a certificate that is not trusted.
    pub async fn channel(&self) -> Result<Channel, Failure> {
        let server = &self.server;
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let url = if server.contains("://") { server.clone() } else { format!("{scheme}://{server}") };
        let wrong =
            |error| Failure::usage(format!("--server {server}: {error}; expected an address such as 127.0.0.1:50051"));
        let endpoint = Endpoint::from_shared(url).map_err(wrong)?.connect_timeout(CONNECT);
        let secure = endpoint.uri().scheme_str() == Some("https");
        // Neither a token nor a wish for TLS ends up in plain text.
        if !secure && (self.certificate.is_some() || self.token.is_some() && !is_local(&endpoint)) {
            return Err(Failure::usage(format!(
                "--server {server}: --certificate and --token need TLS; write https://HOST:PORT"
            )));
        }
        let unreachable = |error: &(dyn Error + 'static)| {
            let reason = innermost(error);
            if reason.to_string().contains("certificate") {
                let remedy = "name the certificate of its CA with --certificate";
                return Failure::failed(format!("{server} is not trusted: {reason}; {remedy}"));
            }
            if reason.to_string().contains("corrupt message") {
                return Failure::failed(format!("{server} answers, but not by TLS: write http://HOST:PORT ({reason})"));
            }
            Failure::failed(format!(
                "no swarm answers at {server}: {reason}; start one by `slm up -f DIR`, or name another with --server"
            ))
        };
        if !secure {
            return endpoint.connect().await.map_err(|error| unreachable(&error));
        }
        self.trust()?.connect(&endpoint).await.map_err(|error| unreachable(&error))
    }

    fn trust(&self) -> Result<Trust, Failure> {
        let Some(file) = &self.certificate else { return Ok(Trust::System) };
        let wrong = |error: &dyn Error| Failure::usage(format!("--certificate {}: {error}", file.display()));
        let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
        Trust::pem(&pem).map_err(|error| wrong(&error))
    }
}

fn is_local(endpoint: &Endpoint) -> bool {
    endpoint.uri().host().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host))
}

/// A connected swarm.
#[derive(Clone)]
pub struct Client {
    /// Generation of answers.
    pub generation: GenerationClient<InterceptedService<Channel, Bearer>>,
    /// Vectors of texts.
    pub embeddings: EmbeddingsClient<InterceptedService<Channel, Bearer>>,
    /// Tokens of prompts.
    pub tokens: TokensClient<InterceptedService<Channel, Bearer>>,
    /// Models of the swarm, and routing decisions.
    pub swarm: SwarmClient<InterceptedService<Channel, Bearer>>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// No answer at the address.
    pub async fn connect(server: &ServerArgs) -> Result<Self, Failure> {
        let channel = InterceptedService::new(server.channel().await?, server.token.clone().unwrap_or_default());
        Ok(Self {
            generation: GenerationClient::new(channel.clone()),
            embeddings: EmbeddingsClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            tokens: TokensClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            swarm: SwarmClient::new(channel),
        })
    }
}

/// The failure of a call, for people: the message, and the kind of failure where the message does not say it.
pub fn refused(status: &Status) -> Failure {
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    if let Some(hint) = wrong_port(message) {
        return Failure::failed(format!("{hint} ({message})"));
    }
    match status.code() {
        Code::Unavailable => Failure::failed(format!("not available now: {message}")),
        Code::Unauthenticated => Failure::failed(format!("{message}; with slm, set SLM_TOKEN")),
        Code::ResourceExhausted => Failure::failed(format!("too busy now: {message}")),
        _ => Failure::failed(message),
    }
}

/// The likely mistake behind what a gRPC client says of a peer that does not speak gRPC.
fn wrong_port(message: &str) -> Option<&'static str> {
    if message.contains("invalid compression flag") || message.contains("invalid content-type") {
        return Some("the server answers, but not by gRPC: is this its HTTP port? name the gRPC port with --server");
    }
    if message == "operation was canceled" || message.contains("h2 protocol error") {
        return Some("the server ended the connection: if it speaks TLS, write --server https://HOST:PORT");
    }
    None
}

/// A prompt, and the name that answers it.
#[derive(Clone, Debug, clap::Args)]
pub struct PromptArgs {
    /// A model, an adapter or a route.
    pub name: String,
    /// The prompt; `-` reads it from standard input.
    pub prompt: String,
    /// System message.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Continue the prompt as it is, without the model's chat template.
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    /// Metadata for route rules; may be given several times.
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = key_value)]
    pub metadata: Vec<(String, String)>,
}

impl PromptArgs {
    /// The request, with everything else unset.
    ///
    /// # Errors
    /// Standard input that is not UTF-8.
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
            let turn = |role: &str, content: String| Message { role: role.to_owned(), content, ..Default::default() };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_port_is_told_as_one() {
        let cases = [
            ("protocol error: received message with invalid compression flag: 60", "name the gRPC port with --server"),
            ("invalid content-type: text/plain", "name the gRPC port with --server"),
            ("h2 protocol error: http2 error", "write --server https://HOST:PORT"),
        ];
        for (message, hint) in cases {
            let failure = refused(&Status::internal(message));
            let Failure::Failed(told) = &failure else { panic!("{failure:?}") };
            assert!(told.contains(hint) && told.contains(message), "{told}");
        }
    }
}
