//! `slm chat`: a conversation in a terminal, or one whose lines come through a pipe.
//!
//! `lines` is what a person types, `command` what begins with a slash, `answer` one answer as it is generated.

mod answer;
mod command;
mod lines;

use clap::Args;
use slm_crds::nearest::{did_you_mean, nearest};
use slm_proto::v1::{GenerateRequest, ListModelsRequest, Message, Messages, Sampling, generate_request::Input};

use self::{
    answer::{Ended, answer},
    command::{Command, HELP},
    lines::{Line, Lines},
};
use crate::{
    connection::{Client, ServerArgs, refused},
    swarm::SwarmArgs,
};
use slm_console::{
    exit::{self, Failure},
    output, style,
    style::styled,
};

/// A conversation with a model, an adapter or a route.
///
/// Each line is a message; a line that ends with \ goes on in the next one, and """ begins and ends a message of several lines. What was
/// said is sent along every time. Ctrl-C ends the answer that is being written, and not the program; Ctrl-D ends that. Lines that
/// begin with / are commands: /help lists them. With a pipe as standard input each line of it is a message, and the first one that
/// is refused ends the program.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm chat smollm2\n  slm chat assistant --explain\n  \
    slm chat smollm2 --system \"Answer in one sentence.\" --temperature 0.7\n  \
    slm chat -f examples/quickstart kitchen")]
pub struct ChatArgs {
    /// A model, an adapter or a route.
    name: String,
    /// System message.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer at most [default: what the context has left].
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token always; up to 2. Tokens less than a twentieth as likely as the likeliest are never taken.
    #[arg(long, value_name = "T", default_value_t = 0.7)]
    temperature: f32,
    /// Makes sampled answers repeatable.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Say below each answer how the expert was chosen.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    swarm: SwarmArgs,
}

/// Without it a small model sooner or later takes one of the many tokens that are hardly likely, and is lost from there on.
const MIN_P: f32 = 0.05;

/// Runs it.
pub async fn execute(args: ChatArgs) -> Result<(), Failure> {
    args.swarm.ask(async |server| converse(&args, server).await).await
}

/// What was said, and to whom the next message goes.
struct Conversation {
    model: String,
    system: Option<String>,
    messages: Vec<Message>,
}

async fn converse(args: &ChatArgs, server: &ServerArgs) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let mut lines = Lines::open()?;
    let mut conversation = Conversation { model: args.name.clone(), system: args.system.clone(), messages: Vec::new() };
    if lines.is_terminal() {
        output::note(&styled(style::DIM, &format!("{}; /help lists the commands, Ctrl-D ends", args.name)));
    }
    loop {
        let text = match lines.next().await? {
            Line::Message(text) => text,
            Line::Nothing => continue,
            Line::End => return Ok(()),
        };
        match Command::read(&text) {
            None => {}
            Some(Command::Exit) => return Ok(()),
            Some(Command::Model(name)) => {
                conversation.turn_to(&mut client, name).await?;
                continue;
            }
            Some(command) => {
                conversation.follow(command);
                continue;
            }
        }
        conversation.messages.push(said("user", text));
        match answer(&mut client, conversation.request(args), args.explain).await? {
            Ended::Whole(text) | Ended::Stopped(text) => conversation.messages.push(said("assistant", text)),
            Ended::Refused(failure) if !lines.is_terminal() => return Err(failure),
            Ended::Refused(failure) => {
                // The question may be asked again, of another model.
                conversation.messages.pop();
                if let Failure::Failed(message) | Failure::Usage(message) = failure {
                    exit::say(&message);
                }
            }
        }
    }
}

fn said(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content, ..Message::default() }
}

impl Conversation {
    fn request(&self, args: &ChatArgs) -> GenerateRequest {
        let system = self.system.iter().map(|text| said("system", text.clone()));
        GenerateRequest {
            model: self.model.clone(),
            input: Some(Input::Messages(Messages { messages: system.chain(self.messages.iter().cloned()).collect() })),
            sampling: Some(Sampling {
                temperature: Some(args.temperature),
                min_p: Some(MIN_P),
                seed: args.seed,
                ..Sampling::default()
            }),
            max_tokens: args.max_tokens,
            explain: args.explain,
            ..GenerateRequest::default()
        }
    }

    /// Another model answers from here on, if there is one of that name.
    async fn turn_to(&mut self, client: &mut Client, name: String) -> Result<(), Failure> {
        let listed = client.swarm.list_models(ListModelsRequest {}).await.map_err(|status| refused(&status))?;
        let names: Vec<String> = listed.into_inner().models.into_iter().map(|model| model.name).collect();
        let told = if names.contains(&name) {
            self.model = name;
            format!("{} answers from here on", self.model)
        } else {
            let near = did_you_mean(&nearest(&name, names.iter().map(String::as_str)));
            format!("no model, adapter or route is named `{name}`{near}")
        };
        output::note(&styled(style::DIM, &told));
        Ok(())
    }

    fn follow(&mut self, command: Command) {
        let told = match command {
            Command::Help => HELP.to_owned(),
            Command::Clear => {
                self.messages.clear();
                "a new conversation".to_owned()
            }
            Command::System(text) => {
                self.system = (!text.is_empty()).then_some(text);
                self.system.as_ref().map_or("no system message".to_owned(), |text| format!("system message: {text}"))
            }
            Command::Unknown(name) => format!("there is no command {name}\n{HELP}"),
            Command::Model(_) | Command::Exit => return,
        };
        output::note(&styled(style::DIM, &told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_change_what_is_sent() {
        let mut conversation =
            Conversation { model: "a".to_owned(), system: None, messages: vec![said("user", "x".into())] };
        conversation.follow(Command::System("Be brief.".to_owned()));
        assert_eq!((conversation.model.as_str(), conversation.system.as_deref()), ("a", Some("Be brief.")));
        conversation.follow(Command::System(String::new()));
        conversation.follow(Command::Clear);
        assert_eq!((conversation.system, conversation.messages.len()), (None, 0));
    }
}
