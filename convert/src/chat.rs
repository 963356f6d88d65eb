//! Chat templates: the Jinja programs that come with a model and turn messages into a prompt.
//!
//! They are written for Python's Jinja2 as transformers sets it up; here minijinja runs them, with Python's string
//! methods, blocks trimmed as there, and the functions that transformers adds. A template is somebody else's program,
//! so what it may compute and print is limited.

mod clock;
mod json;
mod output;
mod percent;
mod python;

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use output::Limited;

const NAME: &str = "chat_template";
/// Real templates have up to some 20 KiB.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// More than any context holds.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Instructions; a long conversation takes some ten thousands.
const FUEL: u64 = 5_000_000;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Who said it, for templates that tell participants of one role apart.
    #[serde(default)]
    pub name: Option<String>,
}

impl ChatMessage {
    /// A turn without a name.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), name: None }
    }

    fn to_value(&self) -> Value {
        let name = self.name.as_deref().map(|name| ("name", name));
        Value::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())].into_iter().chain(name))
    }
}

/// A template that has been parsed. Stored as its [`ChatSource`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "ChatSource", try_from = "ChatSource")]
pub struct ChatTemplate {
    environment: Environment<'static>,
    template: String,
    file: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

/// What a [`ChatTemplate`] is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatSource {
    /// Name of the file that it came with, or of the metadata key. Callers read it in errors: no path of this machine.
    pub file: String,
    /// Its text.
    pub template: String,
    /// What `bos_token` is in it.
    pub bos_token: Option<String>,
    /// What `eos_token` is in it.
    pub eos_token: Option<String>,
}

impl From<ChatTemplate> for ChatSource {
    fn from(of: ChatTemplate) -> Self {
        Self { file: of.file, template: of.template, bos_token: of.bos_token, eos_token: of.eos_token }
    }
}

impl TryFrom<ChatSource> for ChatTemplate {
    type Error = ChatError;

    fn try_from(source: ChatSource) -> Result<Self, ChatError> {
        Self::new(&source.file, source.template, source.bos_token, source.eos_token)
    }
}

/// A template that does not parse or does not render these messages.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is not one.
    #[error("chat template of {file}, line {line}: {problem}")]
    Syntax {
        /// File that it came with.
        file: String,
        /// Line of the template, from 1.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// The template refuses these messages in its own words.
    #[error("the model's chat template refuses these messages: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// The template failed on these messages.
    #[error("chat template of {file}, line {line}: {problem}")]
    Render {
        /// File that it came with.
        file: String,
        /// Line of the template, from 1.
        line: usize,
        /// What went wrong.
        problem: String,
    },
    /// The template computed or printed more than it may.
    #[error("chat template of {file}: {problem}; shorten the conversation or repair the template")]
    Limit {
        /// File that it came with.
        file: String,
        /// Which limit.
        problem: String,
    },
}

impl ChatTemplate {
    /// Parses a template; `file` is named in errors, which callers read: a name, not a path.
    ///
    /// # Errors
    /// Names the line that does not parse.
    pub fn new(
        file: &str,
        source: String,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, ChatError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            let problem = format!("{} bytes long; the limit is {TEMPLATE_BYTES_MAX}", source.len());
            return Err(ChatError::Limit { file: file.to_owned(), problem });
        }
        let mut environment = Environment::new();
        environment.set_syntax(syntax().map_err(|error| ChatError::Syntax {
            file: file.to_owned(),
            line: 0,
            problem: describe(&error),
        })?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        python::add(&mut environment);
        percent::add(&mut environment);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| clock::format(SystemTime::now(), format));
        environment.add_filter("tojson", json::tojson);
        let adapted = percent::rewritten(without_generation_marks(source.clone()));
        environment.add_template_owned(NAME, adapted).map_err(|error| ChatError::Syntax {
            file: file.to_owned(),
            line: error.line().unwrap_or(0),
            problem: describe(&error),
        })?;
        Ok(Self { environment, template: source, file: file.to_owned(), bos_token, eos_token })
    }

    /// Name of the file that it came with.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The prompt for a conversation; with `add_generation_prompt` it ends where the assistant is to speak.
    ///
    /// The template writes special tokens itself: encode the prompt without adding any.
    ///
    /// # Errors
    /// What the template says against these messages, or the line on which it fails.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ChatError> {
        let mut output = Limited::new(OUTPUT_BYTES_MAX);
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            let context = context! {
                messages => messages.iter().map(ChatMessage::to_value).collect::<Value>(),
                add_generation_prompt,
                // A token that the model does not have prints as nothing.
                bos_token => self.bos_token.as_deref().unwrap_or_default(),
                eos_token => self.eos_token.as_deref().unwrap_or_default(),
                tools => Value::from(()),
                documents => Value::from(()),
            };
            template.render_captured_to(context, &mut output).map(drop)
        });
        let limit = |problem: String| Err(ChatError::Limit { file: self.file.clone(), problem });
        match rendered {
            Ok(()) => Ok(output.into_text()),
            Err(_) if output.is_full() => limit(format!("it printed more than {OUTPUT_BYTES_MAX} bytes")),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => limit(format!("it ran for more than {FUEL} steps")),
            Err(error) => Err(match refusal(&error) {
                Some(message) => ChatError::Refused { message },
                None => ChatError::Render {
                    file: self.file.clone(),
                    line: error.line().unwrap_or(0),
                    problem: describe(&error),
                },
            }),
        }
    }
}

/// Blocks leave no blank lines behind, as transformers has it.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// What `raise_exception` carries up through the template.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Refusal(message)))
}

fn refusal(error: &Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return Some(refusal.0.clone());
        }
        source = cause.source();
    }
    None
}

/// `{% generation %}` marks what the assistant said, for training; for a prompt it means nothing.
fn without_generation_marks(source: String) -> String {
    let Ok(mark) = fancy_regex::Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}") else { return source };
    let condition = |captures: &fancy_regex::Captures<'_>| {
        let group = |index: usize| captures.get(index).map_or("", |found| found.as_str());
        let tag = if group(2).is_empty() { "if true" } else { "endif" };
        format!("{{%{} {tag} {}%}}", group(1), group(3))
    };
    mark.replace_all(&source, condition).into_owned()
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
