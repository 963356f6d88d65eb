//! A request as the JSON of `/chat/completions`. Pure.
//!
//! What OpenAI's API has no word for is refused by name, never dropped: an answer that ignored it would look like one that did not.
//! Left out is what concerns the swarm alone (`metadata`, `priority`, `tenant`), and what an earlier answer thought (`reasoning`), which
//! these endpoints do not take back.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};
use slm_proto::v1::{
    GenerateRequest, Message, Sampling, Tool, ToolCall, ToolChoiceMode, generate_request::Input, sampling::Constraint,
};
use thiserror::Error;

/// A field that cannot leave.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {why}")]
pub(crate) struct Unsupported {
    /// As the protocol names it.
    pub(crate) field: &'static str,
    pub(crate) why: String,
}

fn unsupported(field: &'static str) -> Unsupported {
    Unsupported {
        field,
        why: "an ExternalModel does not take it; leave it out, or ask a model of the swarm".to_owned(),
    }
}

/// The body for the model that is called `model` there. `texts` changes each text of the conversation on its way.
///
/// # Errors
/// The first field that an OpenAI-compatible endpoint has no word for.
pub(crate) fn body(request: &GenerateRequest, model: &str, texts: &mut impl Texts) -> Result<Value, Unsupported> {
    refuse(request)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), model.into());
    let Some(Input::Messages(conversation)) = &request.input else {
        return Err(Unsupported { field: "messages", why: "an ExternalModel takes `messages` alone".to_owned() });
    };
    let mut calls = Calls::default();
    let messages = conversation.messages.iter().map(|message| self::message(message, &mut calls, texts));
    body.insert("messages".to_owned(), messages.collect::<Result<_, _>>()?);
    if let Some(max) = request.max_tokens {
        // The word of today: `max_tokens` is refused by models that think.
        body.insert("max_completion_tokens".to_owned(), max.into());
    }
    if !request.stop.is_empty() {
        body.insert("stop".to_owned(), json!(request.stop));
    }
    if let Some(sampling) = &request.sampling {
        self::sampling(sampling, &mut body)?;
    }
    if let Some(top) = request.logprobs {
        body.insert("logprobs".to_owned(), true.into());
        body.insert("top_logprobs".to_owned(), top.into());
    }
    tools(request, &mut body)?;
    body.insert("stream".to_owned(), true.into());
    body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    Ok(Value::Object(body))
}

/// What changes texts on their way out.
pub(crate) trait Texts {
    /// A text.
    fn text(&mut self, text: &str) -> String;
    /// A JSON text, whose strings are changed.
    fn json(&mut self, text: &str) -> String;
}

fn refuse(request: &GenerateRequest) -> Result<(), Unsupported> {
    let asked = [
        ("stop_token_ids", !request.stop_token_ids.is_empty()),
        ("ignore_eos", request.ignore_eos),
        ("parse_special_tokens", request.parse_special_tokens == Some(true)),
        ("chat_template_kwargs", !request.chat_template_kwargs.is_empty()),
        ("add_special_tokens", request.add_special_tokens.is_some()),
        ("suffix", !request.suffix.is_empty()),
        ("add_generation_prompt", request.add_generation_prompt == Some(false)),
        ("continue_final_message", request.continue_final_message),
        ("echo", request.echo),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(unsupported(field)),
        None => Ok(()),
    }
}

/// The ids of calls. Here they may be left out, as Ollama's API does: a result is then that of the first call without one. Endpoints
/// want them.
#[derive(Debug, Default)]
struct Calls {
    count: usize,
    /// Calls without a result, in their order.
    open: VecDeque<String>,
}

impl Calls {
    /// A call has been made.
    fn made(&mut self, id: &str) -> String {
        self.count += 1;
        let id = if id.is_empty() { format!("call_{}", self.count) } else { id.to_owned() };
        self.open.push_back(id.clone());
        id
    }

    /// The call whose result a message is.
    fn result(&mut self, id: &str) -> Option<String> {
        if id.is_empty() {
            return self.open.pop_front();
        }
        self.open.retain(|open| open != id);
        Some(id.to_owned())
    }
}

fn message(message: &Message, calls: &mut Calls, texts: &mut impl Texts) -> Result<Value, Unsupported> {
    let mut said = Map::new();
    said.insert("role".to_owned(), message.role.as_str().into());
    said.insert("content".to_owned(), texts.text(&message.content).into());
    if !message.name.is_empty() {
        said.insert("name".to_owned(), message.name.as_str().into());
    }
    if message.role == "tool" {
        let why = || {
            "a result of a tool without a call before it; put the assistant's message with its call before it"
                .to_owned()
        };
        let id = calls.result(&message.tool_call_id);
        said.insert("tool_call_id".to_owned(), id.ok_or_else(|| Unsupported { field: "messages", why: why() })?.into());
    }
    if !message.tool_calls.is_empty() {
        let call = |ToolCall { id, name, arguments }: &ToolCall| {
            let (id, arguments) = (calls.made(id), texts.json(arguments));
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
        };
        said.insert("tool_calls".to_owned(), message.tool_calls.iter().map(call).collect());
    }
    Ok(Value::Object(said))
}

fn sampling(sampling: &Sampling, body: &mut Map<String, Value>) -> Result<(), Unsupported> {
    let refused = [
        ("top_k", sampling.top_k.is_some_and(|k| k > 0)),
        ("min_p", sampling.min_p.is_some_and(|p| p > 0.0)),
        ("repetition_penalty", sampling.repetition_penalty.is_some_and(|penalty| (penalty - 1.0).abs() > f32::EPSILON)),
        ("logit_bias", !sampling.logit_bias.is_empty()),
    ];
    if let Some((field, _)) = refused.into_iter().find(|(_, asked)| *asked) {
        return Err(unsupported(field));
    }
    let numbers = [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ];
    for (field, number) in numbers {
        if let Some(number) = number {
            // 0.7 is 0.7 there, too, and not 0.699999988079071.
            let exact = number.to_string().parse::<f64>().unwrap_or_else(|_| f64::from(number));
            body.insert(field.to_owned(), exact.into());
        }
    }
    if let Some(seed) = sampling.seed {
        body.insert("seed".to_owned(), seed.into());
    }
    let format = match &sampling.constraint {
        None => return Ok(()),
        Some(Constraint::JsonObject(_)) => json!({ "type": "json_object" }),
        Some(Constraint::JsonSchema(text)) => {
            let wrong = |error| Unsupported { field: "json_schema", why: format!("not JSON: {error}") };
            let schema: Value = serde_json::from_str(text).map_err(wrong)?;
            // Without it the schema is a wish.
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema } })
        }
        Some(Constraint::Regex(_)) => return Err(unsupported("regex")),
        Some(Constraint::Grammar(_)) => return Err(unsupported("grammar")),
        Some(Constraint::Choice(_)) => return Err(unsupported("choice")),
    };
    body.insert("response_format".to_owned(), format);
    Ok(())
}

fn tools(request: &GenerateRequest, body: &mut Map<String, Value>) -> Result<(), Unsupported> {
    if request.tools.is_empty() {
        return Ok(());
    }
    let tool = |tool: &Tool| {
        let mut function = Map::new();
        function.insert("name".to_owned(), tool.name.as_str().into());
        if !tool.description.is_empty() {
            function.insert("description".to_owned(), tool.description.as_str().into());
        }
        if !tool.parameters.is_empty() {
            let wrong = |error| Unsupported { field: "tools", why: format!("{}: parameters: {error}", tool.name) };
            function.insert("parameters".to_owned(), serde_json::from_str(&tool.parameters).map_err(wrong)?);
        }
        if tool.strict {
            function.insert("strict".to_owned(), true.into());
        }
        Ok(json!({ "type": "function", "function": function }))
    };
    body.insert("tools".to_owned(), request.tools.iter().map(tool).collect::<Result<_, _>>()?);
    if let Some(choice) = &request.tool_choice {
        let choice = match choice.mode() {
            _ if !choice.name.is_empty() => json!({ "type": "function", "function": { "name": choice.name } }),
            ToolChoiceMode::None => "none".into(),
            ToolChoiceMode::Required => "required".into(),
            ToolChoiceMode::Auto | ToolChoiceMode::Unspecified => "auto".into(),
        };
        body.insert("tool_choice".to_owned(), choice);
    }
    if let Some(parallel) = request.parallel_tool_calls {
        body.insert("parallel_tool_calls".to_owned(), parallel.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{Choice, Messages, ToolChoice};

    use super::*;
    use crate::restore::Leaving;

    fn request(messages: Vec<Message>) -> GenerateRequest {
        GenerateRequest { input: Some(Input::Messages(Messages { messages })), ..GenerateRequest::default() }
    }

    fn said(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned(), ..Message::default() }
    }

    fn calling(ids: &[&str]) -> Message {
        let call = |id: &&str| ToolCall { id: (*id).to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
        Message { tool_calls: ids.iter().map(call).collect(), ..said("assistant", "") }
    }

    fn result(id: &str) -> Message {
        Message { tool_call_id: id.to_owned(), ..said("tool", "42") }
    }

    fn sent(request: &GenerateRequest) -> Result<Value, Unsupported> {
        body(request, "gpt", &mut Leaving::AsTheyAre)
    }

    #[test]
    fn calls_and_results_find_each_other() {
        let cases = [
            (vec![calling(&["a", "b"]), result("b"), result("a")], vec!["a", "b"], vec!["b", "a"]),
            (vec![calling(&["", ""]), result(""), result("")], vec!["call_1", "call_2"], vec!["call_1", "call_2"]),
            (vec![calling(&["a", ""]), result("a"), result("")], vec!["a", "call_2"], vec!["a", "call_2"]),
            (
                vec![calling(&[""]), result(""), calling(&[""]), result("")],
                vec!["call_1", "call_2"],
                vec!["call_1", "call_2"],
            ),
        ];
        for (messages, made, answered) in cases {
            let body = sent(&request(messages)).expect("a body");
            let messages = body["messages"].as_array().expect("messages");
            let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
            assert_eq!(calls.map(|call| call["id"].as_str().expect("an id")).collect::<Vec<_>>(), made);
            let results = messages.iter().filter_map(|message| message["tool_call_id"].as_str());
            assert_eq!(results.collect::<Vec<_>>(), answered);
        }
        let orphan = sent(&request(vec![said("user", "hello"), result("")])).expect_err("no call");
        assert_eq!(orphan.field, "messages");
    }

    #[test]
    fn what_has_no_word_there_is_refused_by_name() {
        type Change = fn(&mut GenerateRequest);
        fn sampled(request: &mut GenerateRequest, change: impl FnOnce(&mut Sampling)) {
            change(request.sampling.get_or_insert_default());
        }
        let cases: &[(&str, Change)] = &[
            ("messages", |it| it.input = Some(Input::Prompt("a".to_owned()))),
            ("messages", |it| it.input = None),
            ("stop_token_ids", |it| it.stop_token_ids = vec![1]),
            ("ignore_eos", |it| it.ignore_eos = true),
            ("parse_special_tokens", |it| it.parse_special_tokens = Some(true)),
            ("chat_template_kwargs", |it| it.chat_template_kwargs = "{}".to_owned()),
            ("add_special_tokens", |it| it.add_special_tokens = Some(false)),
            ("suffix", |it| it.suffix = "a".to_owned()),
            ("add_generation_prompt", |it| it.add_generation_prompt = Some(false)),
            ("continue_final_message", |it| it.continue_final_message = true),
            ("echo", |it| it.echo = true),
            ("top_k", |it| sampled(it, |it| it.top_k = Some(1))),
            ("min_p", |it| sampled(it, |it| it.min_p = Some(0.1))),
            ("repetition_penalty", |it| sampled(it, |it| it.repetition_penalty = Some(1.1))),
            ("logit_bias", |it| sampled(it, |it| it.logit_bias = [(1, 1.0)].into())),
            ("regex", |it| sampled(it, |it| it.constraint = Some(Constraint::Regex("a".to_owned())))),
            ("grammar", |it| sampled(it, |it| it.constraint = Some(Constraint::Grammar("a".to_owned())))),
            ("choice", |it| sampled(it, |it| it.constraint = Some(Constraint::Choice(Choice::default())))),
            ("json_schema", |it| sampled(it, |it| it.constraint = Some(Constraint::JsonSchema("{".to_owned())))),
            ("tools", |it| it.tools = vec![Tool { parameters: "{".to_owned(), ..Tool::default() }]),
        ];
        for (field, change) in cases {
            let mut request = request(vec![said("user", "hello")]);
            change(&mut request);
            assert_eq!(sent(&request).expect_err(field).field, *field);
        }
        // What is off there, too, may be said.
        let mut off = request(vec![said("user", "hello")]);
        sampled(&mut off, |it| (it.top_k, it.min_p, it.repetition_penalty) = (Some(0), Some(0.0), Some(1.0)));
        (off.parse_special_tokens, off.add_generation_prompt) = (Some(false), Some(true));
        let plain = sent(&request(vec![said("user", "hello")])).expect("a body");
        assert_eq!(sent(&off).expect("a body"), plain);
    }

    #[test]
    fn choices_of_tools() {
        let mode = |mode: ToolChoiceMode, name: &str| ToolChoice { mode: mode.into(), name: name.to_owned() };
        let named = json!({ "type": "function", "function": { "name": "f" } });
        for (choice, expected) in [
            (mode(ToolChoiceMode::Auto, ""), json!("auto")),
            (mode(ToolChoiceMode::None, ""), json!("none")),
            (mode(ToolChoiceMode::Required, ""), json!("required")),
            (mode(ToolChoiceMode::Required, "f"), named),
        ] {
            let mut request = request(vec![said("user", "hello")]);
            request.tools = vec![Tool { name: "f".to_owned(), ..Tool::default() }];
            request.tool_choice = Some(choice);
            assert_eq!(sent(&request).expect("a body")["tool_choice"], expected);
        }
    }
}
