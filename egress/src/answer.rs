//! The endpoint's answer, piece by piece, as events of the protocol. Pure.

use serde::Deserialize;
use serde_json::Value;
use slm_crds::external::Price;
use slm_proto::v1::{
    Cost, Delta, FinishReason, Finished, TokenLogprob, ToolCallDelta, TopLogprob, Usage, generate_response::Event,
};

use crate::restore::Restoring;

/// A part of an answer that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The endpoint reports an error in the stream.
    #[error("the endpoint reports: {0}")]
    Reported(String),
    /// It is no chunk of a chat completion.
    #[error("the endpoint's answer cannot be read: no chunk of a chat completion, at character {column}")]
    Rubbish { column: usize },
    /// It ended too early.
    #[error("the endpoint ended the answer before it was finished")]
    CutShort,
}

/// What is known of an answer that has not ended.
#[derive(Debug)]
pub(crate) struct Answer {
    restoring: Restoring,
    reason: Option<FinishReason>,
    /// Unset until the endpoint has counted.
    usage: Option<Usage>,
    /// Calls so far, by the endpoint's index and id, in our order.
    calls: Vec<(u32, String)>,
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<SaidUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    /// In a stream, or whole.
    #[serde(alias = "message")]
    delta: Option<Said>,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Default, Deserialize)]
struct Said {
    content: Option<String>,
    /// Two names of one thing; some servers send both.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u32>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Token>>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    bytes: Option<Vec<u8>>,
    logprob: f32,
    top_logprobs: Option<Vec<Token>>,
}

#[derive(Deserialize)]
struct SaidUsage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<SaidDetails>,
}

#[derive(Deserialize)]
struct SaidDetails {
    cached_tokens: Option<u32>,
}

impl Answer {
    pub(crate) fn new(restoring: Restoring) -> Self {
        Self { restoring, reason: None, usage: None, calls: Vec::new(), done: false }
    }

    /// The events of one piece: the data of an event of a stream, or a whole answer.
    ///
    /// # Errors
    /// It is no piece of an answer.
    pub(crate) fn piece(&mut self, data: &str) -> Result<Vec<Event>, Broken> {
        if data == "[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        // The parser's own words may show what stands there, which is the caller's.
        let rubbish = |error: serde_json::Error| Broken::Rubbish { column: error.column() };
        let chunk: Chunk = serde_json::from_str(data).map_err(rubbish)?;
        if let Some(error) = chunk.error {
            return Err(Broken::Reported(reported(&error)));
        }
        if let Some(usage) = chunk.usage {
            let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
            self.usage = Some(Usage {
                prompt_tokens: usage.prompt_tokens.unwrap_or(0),
                completion_tokens: usage.completion_tokens.unwrap_or(0),
                cached_tokens: cached.unwrap_or(0),
            });
        }
        let mut events = Vec::new();
        // One answer was asked for.
        for choice in chunk.choices.into_iter().flatten().filter(|choice| choice.index == 0) {
            self.choice(choice, &mut events);
        }
        Ok(events.into_iter().map(Event::Delta).collect())
    }

    fn choice(&mut self, choice: Choice, deltas: &mut Vec<Delta>) {
        let Said { content, reasoning_content, reasoning, refusal, tool_calls } = choice.delta.unwrap_or_default();
        let reasoning = reasoning_content.filter(|thought| !thought.is_empty()).or(reasoning);
        let text = self.restoring.text(&[content, refusal].into_iter().flatten().collect::<String>());
        let reasoning = self.restoring.reasoning(&reasoning.unwrap_or_default());
        let logprobs: Vec<TokenLogprob> =
            choice.logprobs.and_then(|logprobs| logprobs.content).into_iter().flatten().map(token).collect();
        if !(text.is_empty() && reasoning.is_empty() && logprobs.is_empty()) {
            deltas.push(Delta { text, reasoning, logprobs, tokens: 1, ..Delta::default() });
        }
        for (place, call) in tool_calls.unwrap_or_default().into_iter().enumerate() {
            self.call(call, u32::try_from(place).unwrap_or(u32::MAX), deltas);
        }
        if let Some(reason) = choice.finish_reason {
            self.reason = Some(match reason.as_str() {
                "length" => FinishReason::Length,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                _ => FinishReason::Stop,
            });
        }
    }

    fn call(&mut self, call: Call, place: u32, deltas: &mut Vec<Delta>) {
        let id = call.id.unwrap_or_default();
        let function = call.function.unwrap_or(Function { name: None, arguments: None });
        let is_named = function.name.as_ref().is_some_and(|name| !name.is_empty());
        // Indices begin anywhere, may all be 0, and may be missing: then a name with another id begins a call, and what has neither goes
        // on with the last.
        let known = match call.index {
            Some(index) => {
                let last = self.calls.iter().rposition(|(known, _)| *known == index);
                last.filter(|last| !is_named || id.is_empty() || self.calls[*last].1 == id)
            }
            None if id.is_empty() => self.calls.len().checked_sub(1).filter(|_| !is_named),
            None => self.calls.iter().position(|(_, known)| *known == id),
        };
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let pieces = function.arguments.unwrap_or_default();
        if let Some(known) = known {
            let arguments = self.restoring.arguments(at(known), &pieces);
            if !arguments.is_empty() {
                deltas.push(part(at(known), "", "", arguments));
            }
            return;
        }
        let index = at(self.calls.len());
        let shown = if id.is_empty() { format!("call_{index}") } else { id.clone() };
        self.calls.push((call.index.unwrap_or(place), id));
        let arguments = self.restoring.arguments(index, &pieces);
        deltas.push(part(index, &shown, &function.name.unwrap_or_default(), arguments));
    }

    /// Whether nothing more is to come.
    pub(crate) fn done(&self) -> bool {
        self.done
    }

    /// Tokens, if the endpoint has counted them.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The last events.
    ///
    /// # Errors
    /// The answer is not finished.
    pub(crate) fn finish(&mut self, price: Option<&Price>) -> Result<Vec<Event>, Broken> {
        let reason = match self.reason.or(self.done.then_some(FinishReason::Stop)).ok_or(Broken::CutShort)? {
            // OpenAI's says `stop` of an answer that calls the tool that the request named.
            FinishReason::Stop if !self.calls.is_empty() => FinishReason::ToolCalls,
            reason => reason,
        };
        let (text, reasoning) = self.restoring.end_texts();
        let mut deltas = Vec::new();
        if !(text.is_empty() && reasoning.is_empty()) {
            deltas.push(Delta { text, reasoning, ..Delta::default() });
        }
        deltas.extend(self.restoring.end_calls().into_iter().map(|(index, rest)| part(index, "", "", rest)));
        // What was not counted has no cost, which is not the same as a cost of nothing.
        let cost = price.zip(self.usage).map(|(price, usage)| Cost {
            amount: price.of(usage.prompt_tokens, usage.completion_tokens),
            currency: price.currency.clone(),
        });
        let finished = Finished { reason: reason.into(), usage: self.usage, stop: String::new(), cost };
        Ok(deltas.into_iter().map(Event::Delta).chain([Event::Finished(finished)]).collect())
    }
}

fn part(index: u32, id: &str, name: &str, arguments: String) -> Delta {
    let call = ToolCallDelta { index, id: id.to_owned(), name: name.to_owned(), arguments };
    Delta { tool_calls: vec![call], tokens: 1, ..Delta::default() }
}

/// Its id is the endpoint's own affair: 0.
fn token(token: Token) -> TokenLogprob {
    let bytes = |token: &Token| token.bytes.clone().unwrap_or_else(|| token.token.clone().into_bytes());
    let top =
        token.top_logprobs.iter().flatten().map(|top| TopLogprob { id: 0, token: bytes(top), logprob: top.logprob });
    TokenLogprob { id: 0, token: bytes(&token), logprob: token.logprob, top: top.collect(), special: false }
}

/// The message of an error in OpenAI's form, or what there is.
pub(crate) fn reported(error: &Value) -> String {
    begin(error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned).as_str())
}

/// The beginning of what cannot be read, in one line.
pub(crate) fn begin(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
