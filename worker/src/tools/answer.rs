//! The text of an answer, taken apart: thoughts, text and calls.

use rand::{Rng as _, distr::Alphanumeric};
use slm_proto::v1::{Delta, ToolCallDelta};

use super::{
    Form, Thinking, ToolSet,
    calls::{CallReader, Part},
    thinking::ThinkingReader,
};

/// Letters of a call's id. Mistral's templates accept no other number.
const ID_LETTERS: usize = 9;

/// Takes an answer apart while it comes.
#[derive(Debug)]
pub struct AnswerReader {
    thinking: Option<ThinkingReader>,
    calls: Option<CallReader>,
    /// Calls so far.
    index: u32,
}

impl AnswerReader {
    /// A reader of an answer that thinks between these marks, and is in the middle of it already if `is_open`; and that may call tools.
    #[must_use]
    pub fn new(thinking: Option<(Thinking, bool)>, calls: Option<(Form, ToolSet)>) -> Self {
        Self {
            thinking: thinking.map(|(marks, is_open)| ThinkingReader::new(marks, is_open)),
            calls: calls.map(|(form, tools)| CallReader::new(form, tools)),
            index: 0,
        }
    }

    /// Adds text, and what is certain of the answer to `delta`.
    pub fn push(&mut self, text: String, delta: &mut Delta) {
        let Some(thinking) = &mut self.thinking else { return self.answer(text, delta) };
        let mut answer = String::new();
        thinking.push(&text, &mut delta.reasoning, &mut answer);
        self.answer(answer, delta);
    }

    /// Adds what is left at the end.
    pub fn finish(&mut self, delta: &mut Delta) {
        if let Some(thinking) = &mut self.thinking {
            let mut answer = String::new();
            thinking.finish(&mut delta.reasoning, &mut answer);
            self.answer(answer, delta);
        }
        if let Some(calls) = &mut self.calls {
            let parts = calls.finish();
            self.add(parts, delta);
        }
    }

    /// Whether the answer has called tools, and the arguments of all calls are whole.
    #[must_use]
    pub fn has_called(&self) -> bool {
        self.index > 0 && !self.calls.as_ref().is_some_and(CallReader::is_cut)
    }

    /// Whether nothing may follow.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.calls.as_ref().is_some_and(CallReader::is_done)
    }

    fn answer(&mut self, text: String, delta: &mut Delta) {
        let Some(calls) = &mut self.calls else { return delta.text.push_str(&text) };
        let parts = calls.push(&text);
        self.add(parts, delta);
    }

    fn add(&mut self, parts: Vec<Part>, delta: &mut Delta) {
        for part in parts {
            match part {
                Part::Text(text) => delta.text.push_str(&text),
                Part::Call(call) => {
                    self.begin(call.name, delta);
                    self.argue(&serde_json::Value::Object(call.arguments).to_string(), delta);
                }
                Part::Begun(name) => self.begin(name, delta),
                Part::Arguments(text) => self.argue(&text, delta),
            }
        }
    }

    fn begin(&mut self, name: String, delta: &mut Delta) {
        let id = rand::rng().sample_iter(Alphanumeric).take(ID_LETTERS).map(char::from).collect();
        delta.tool_calls.push(ToolCallDelta { index: self.index, id, name, arguments: String::new() });
        self.index += 1;
    }

    /// Adds to the arguments of the last call. A delta has one part of a call at most.
    fn argue(&self, text: &str, delta: &mut Delta) {
        let index = self.index.saturating_sub(1);
        match delta.tool_calls.last_mut().filter(|part| part.index == index) {
            Some(part) => part.arguments.push_str(text),
            None => {
                let (index, arguments) = (index, text.to_owned());
                delta.tool_calls.push(ToolCallDelta { index, arguments, ..Default::default() });
            }
        }
    }
}
