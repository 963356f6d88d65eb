//! Chat templates: the Jinja programs of models that turn messages into a prompt.
//!
//! They are written for Python's Jinja2 as configured by transformers. Here minijinja runs them, with Python's string
//! methods, trimmed blocks, and the functions that transformers adds. Templates are untrusted programs, so their
//! computation and output are bounded.

mod calls;
mod clock;
mod conversation;
mod format;
mod json;
mod methods;
mod number;
mod output;
mod percent;
mod printf;
mod probe;
mod python;

use std::{collections::BTreeMap, sync::OnceLock, time::SystemTime};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

pub use calls::CallForm;
use conversation::before_tag;
pub use conversation::{ChatMessage, ChatTool, ChatToolCall, Conversation, PromptEnd, ToolsPlace};
use output::Limited;
pub use probe::Abilities;

const NAME: &str = "chat_template";
/// Real templates have up to about 20 KiB.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// More than any context holds.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Bound on instructions; a long conversation takes some ten thousands.
const FUEL: u64 = 5_000_000;

/// A parsed template. Stored as its [`ChatSource`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "ChatSource", try_from = "ChatSource")]
pub struct ChatTemplate {
    environment: Environment<'static>,
    template: String,
    file: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    special_tokens: BTreeMap<String, serde_json::Value>,
    /// See [`Self::written`].
    written: OnceLock<String>,
    /// See [`Self::literals`].
    literals: OnceLock<Vec<String>>,
    /// See [`Self::abilities`].
    abilities: OnceLock<Abilities>,
}

/// Source of a [`ChatTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatSource {
    /// Name of its file or metadata key. Callers see it in errors, so it is not a path.
    pub file: String,
    /// Text of the template.
    pub template: String,
    /// Value of `bos_token`.
    pub bos_token: Option<String>,
    /// Value of `eos_token`.
    pub eos_token: Option<String>,
    /// Values of `unk_token`, `pad_token`, `additional_special_tokens` and the others, each a string or a list.
    #[serde(default)]
    pub special_tokens: BTreeMap<String, serde_json::Value>,
}

impl From<ChatTemplate> for ChatSource {
    fn from(of: ChatTemplate) -> Self {
        let ChatTemplate { file, template, bos_token, eos_token, special_tokens, .. } = of;
        Self { file, template, bos_token, eos_token, special_tokens }
    }
}

impl TryFrom<ChatSource> for ChatTemplate {
    type Error = ChatError;

    fn try_from(source: ChatSource) -> Result<Self, ChatError> {
        let template = Self::new(&source.file, source.template, source.bos_token, source.eos_token)?;
        Ok(template.with_special_tokens(source.special_tokens))
    }
}

/// A template that does not parse, or does not render the messages.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template does not parse.
    #[error("chat template of {file}, line {line}: {problem}")]
    Syntax {
        /// Name of its file.
        file: String,
        /// Line of the template, from 1.
        line: usize,
        /// Message of the parser.
        problem: String,
    },
    /// The template refuses these messages, by `raise_exception`.
    #[error("the model's chat template refuses these messages: {message}")]
    Refused {
        /// Message of the template.
        message: String,
    },
    /// The template failed on these messages.
    #[error("chat template of {file}, line {line}: {problem}")]
    Render {
        /// Name of its file.
        file: String,
        /// Line of the template, from 1.
        line: usize,
        /// Message of the renderer.
        problem: String,
    },
    /// The last message cannot be continued.
    #[error(
        "the last message cannot be continued: it has no text, or the chat template of {file} writes another one; leave out \
         continue_final_message"
    )]
    NothingToContinue {
        /// Name of its file.
        file: String,
    },
    /// The template exceeded a limit.
    #[error("chat template of {file}: {problem}; shorten the conversation or repair the template")]
    Limit {
        /// Name of its file.
        file: String,
        /// Description of the limit.
        problem: String,
    },
}

impl ChatTemplate {
    /// Parses a template. `file` is a name for errors, which callers see; not a path.
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
        Ok(Self {
            environment,
            template: source,
            file: file.to_owned(),
            bos_token,
            eos_token,
            special_tokens: BTreeMap::new(),
            written: OnceLock::new(),
            literals: OnceLock::new(),
            abilities: OnceLock::new(),
        })
    }

    /// The template with more of the variables that transformers passes (`special_tokens_map`).
    #[must_use]
    pub fn with_special_tokens(self, special_tokens: BTreeMap<String, serde_json::Value>) -> Self {
        let (written, literals, abilities) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { special_tokens, written, literals, abilities, ..self }
    }

    /// Its special tokens by name.
    pub(crate) fn tokens(&self) -> BTreeMap<String, serde_json::Value> {
        let named = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        let named = named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())));
        self.special_tokens.clone().into_iter().chain(named).collect()
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.template
    }

    /// Name of its file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The prompt for messages; with `add_generation_prompt` it ends at the assistant's turn.
    ///
    /// The template writes special tokens itself: encode the prompt without adding any.
    ///
    /// # Errors
    /// The template's refusal, or the line on which it fails.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.rendered(&Conversation::new(messages.to_vec()), None, add_generation_prompt)
    }

    /// The prompt for a conversation, which ends as that says. Tools are put where the template looks for them.
    ///
    /// # Errors
    /// The template's refusal, or the line on which it fails.
    pub fn prompt(&self, conversation: &Conversation) -> Result<String, ChatError> {
        let place = if conversation.tools.is_empty() { None } else { self.abilities().tools };
        if conversation.end == PromptEnd::Open {
            let nothing = || ChatError::NothingToContinue { file: self.file.clone() };
            let text = self.rendered(&conversation.tagged().ok_or_else(nothing)?, place, false)?;
            return before_tag(&text).map(str::to_owned).ok_or_else(nothing);
        }
        self.rendered(conversation, place, conversation.end == PromptEnd::Answer)
    }

    fn rendered(
        &self,
        conversation: &Conversation,
        place: Option<ToolsPlace>,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let mut output = Limited::new(OUTPUT_BYTES_MAX);
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            let tokens =
                self.special_tokens.iter().map(|(name, token)| (name.clone(), Value::from(Serde(token.clone()))));
            let context = context! {
                add_generation_prompt,
                // A token that the model does not have renders as an empty string.
                bos_token => self.bos_token.as_deref().unwrap_or_default(),
                eos_token => self.eos_token.as_deref().unwrap_or_default(),
                ..Value::from_pairs(tokens.chain(conversation.variables(place)))
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

/// Blocks leave no blank lines (`trim_blocks`, `lstrip_blocks`), as in transformers.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// Error of `raise_exception`.
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

/// Removes `{% generation %}`, which marks assistant text for training and has no effect on a prompt.
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
