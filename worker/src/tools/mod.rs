//! Tools: functions of the caller's that an answer may call, and what a model thinks before it answers.
//!
//! [`ToolSet`] is what a request says of them, checked. [`Form`] is how the model's chat template writes a call; it is found from the
//! template's text, never from a model's name. With it [`adapted`] fits a conversation to templates that know less, `rule` makes the
//! grammar of an answer that has to call, and an [`AnswerReader`] takes calls and thoughts out of the answer's text.

mod answer;
mod arguments;
mod calls;
mod error;
mod form;
mod forms;
mod grammar;
mod header;
mod messages;
mod render;
mod request;
mod thinking;

pub use answer::AnswerReader;
pub use error::ToolsError;
pub use form::Form;
pub(crate) use grammar::rule;
pub(crate) use messages::conversation;
pub use render::adapted;
pub(crate) use request::variables;
pub use request::{Choice, Tool, ToolSet};
pub use thinking::Thinking;

#[cfg(test)]
mod tests;
