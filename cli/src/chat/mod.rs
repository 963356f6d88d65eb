//! `slm chat`: a conversation in a terminal, or one whose lines come through a pipe.
//!
//! `lines` is what a person types, `command` what begins with a slash, `answer` one answer as it is generated.

mod answer;
mod command;
mod lines;

use clap::Args;
use slm_proto::v1::{GenerateRequest, Message, Messages, Sampling, generate_request::Input};

use self::{
    answer::{Ended, answer},
    command::{Command, HELP},
    lines::{Line, Lines},
};
use crate::{
    client::{Client, ServerArgs},
    exit::{self, Failure},
    output, style,
    style::styled,
    up::SwarmArgs,
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
    /// 0 takes the likeliest token always; up to 2 [default: the model's own].
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Makes sampled answers repeatable.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Say below each answer how the expert was chosen.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    swarm: SwarmArgs,
}

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
            sampling: Some(Sampling { temperature: args.temperature, seed: args.seed, ..Sampling::default() }),
            max_tokens: args.max_tokens,
            explain: args.explain,
            ..GenerateRequest::default()
        }
    }

    fn follow(&mut self, command: Command) {
        let told = match command {
            Command::Help => HELP.to_owned(),
            Command::Clear => {
                self.messages.clear();
                "a new conversation".to_owned()
            }
            Command::Model(name) => {
                self.model = name;
                format!("{} answers from here on", self.model)
            }
            Command::System(text) => {
                self.system = (!text.is_empty()).then_some(text);
                self.system.as_ref().map_or("no system message".to_owned(), |text| format!("system message: {text}"))
            }
            Command::Unknown(name) => format!("there is no command {name}\n{HELP}"),
            Command::Exit => return,
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
        conversation.follow(Command::Model("b".to_owned()));
        conversation.follow(Command::System("Be brief.".to_owned()));
        assert_eq!((conversation.model.as_str(), conversation.system.as_deref()), ("b", Some("Be brief.")));
        conversation.follow(Command::System(String::new()));
        conversation.follow(Command::Clear);
        assert_eq!((conversation.system, conversation.messages.len()), (None, 0));
    }
}
