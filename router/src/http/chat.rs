//! `POST /v1/chat/completions`.

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Message, Messages, generate_request::Input};

use super::{
    Shared, body,
    choices::Choices,
    content_type,
    error::ApiError,
    fields::{Fields, read, shown},
    head::CompletionKind,
    params::{self, ResponseOptions},
    reply, tools, unsupported,
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// Of the name of a participant.
const NAME_CHARS_MAX: usize = 64;
/// Of one conversation: each is a token or more.
const MESSAGES_MAX: usize = 16_384;

pub(super) async fn handle(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let ((mut request, options), hold) = body::read(body, &dispatcher, &caller, parse).await?;
    request.request_id = reply::request_id(&headers);
    let call = Call::new(caller, Api::http_chat, None);
    reply::respond(&dispatcher, (vec![request], hold), options, CompletionKind::Chat, &call).await
}

pub(super) fn parse(mut fields: Fields) -> Result<(GenerateRequest, ResponseOptions), ApiError> {
    let (mut request, mut options) = params::take(&mut fields, CompletionKind::Chat)?;
    let newer = params::max_tokens(&mut fields, "max_completion_tokens")?;
    if newer.is_some() && request.max_tokens.is_some() && newer != request.max_tokens {
        let message = "`max_completion_tokens` and `max_tokens` differ; the second is the old name of the first";
        return Err(ApiError::param("max_completion_tokens", message));
    }
    if newer.is_some() {
        options.names.max_tokens = "max_completion_tokens";
    }
    request.max_tokens = newer.or(request.max_tokens);
    options.choices = Choices::n(&mut fields)?;
    request.logprobs = logprobs(&mut fields)?;
    request.input = Some(Input::Messages(messages(&mut fields, Dialect::OpenAi)?));
    tools::take(&mut fields, &mut request)?;
    request.add_generation_prompt = fields.take("add_generation_prompt")?;
    request.continue_final_message = fields.take("continue_final_message")?.unwrap_or(false);
    let own = ["messages", "max_completion_tokens", "top_logprobs", "add_generation_prompt", "continue_final_message"];
    unsupported::refuse(fields, &[params::NAMES.as_slice(), &tools::NAMES, &own].concat())?;
    Ok((request, options))
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.take::<bool>("logprobs")?.unwrap_or(false);
    match (wanted, fields.take_as::<u32>("top_logprobs", params::LOGPROBS)?) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::param("top_logprobs", "`top_logprobs` is only for `logprobs: true`")),
    }
}

/// Whose messages are read: they differ in calls and their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Ollama,
}

pub(super) fn messages(fields: &mut Fields, dialect: Dialect) -> Result<Messages, ApiError> {
    let Some(list) = fields.take::<Vec<Value>>("messages")? else {
        return Err(ApiError::param("messages", "`messages` is missing; send at least one message"));
    };
    if list.len() > MESSAGES_MAX {
        let message = format!("`messages` has {} entries; at most {MESSAGES_MAX} are accepted", list.len());
        return Err(ApiError::param("messages", message));
    }
    if list.is_empty() {
        return Err(ApiError::param("messages", "`messages` is empty; send at least one message"));
    }
    let messages = list.iter().enumerate().map(|(index, value)| message(&format!("messages[{index}]"), value, dialect));
    Ok(Messages { messages: messages.collect::<Result<_, _>>()? })
}

fn message(path: &str, value: &Value, dialect: Dialect) -> Result<Message, ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    let role = match fields.take::<String>("role").map_err(|error| at(path, error))?.as_deref() {
        None => return Err(ApiError::param(&format!("{path}.role"), format!("`{path}.role` is missing"))),
        // The newer name of the same thing; models know the older one.
        Some("developer") => "system".to_owned(),
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role.to_owned(),
        Some(role) => {
            let role: String = role.chars().take(40).collect();
            let message = format!("`{path}.role` has to be system, developer, user, assistant or tool, not {role:?}");
            return Err(ApiError::param(&format!("{path}.role"), message));
        }
    };
    let refusal = match role.as_str() {
        "assistant" => fields.raw("refusal").filter(|refusal| !unsupported::says_nothing(refusal)),
        _ => None,
    };
    let refusal = refusal.map(|refusal| read::<String>(&format!("{path}.refusal"), &refusal)).transpose()?;
    // A null field counts as absent, but for an assistant that said nothing.
    let null = value.get("content").filter(|content| content.is_null()).cloned();
    let mut message = calls_and_results(path, &role, &mut fields, dialect)?;
    let may_be_absent = refusal.is_some() || !message.tool_calls.is_empty();
    let given = fields.raw("content").or(null);
    message.content = content(&role, &format!("{path}.content"), given, may_be_absent)?;
    message.content.push_str(&refusal.unwrap_or_default());
    let participant = fields.take::<String>("name").map_err(|error| at(path, error))?.unwrap_or_default();
    check_name(&format!("{path}.name"), &participant)?;
    if !participant.is_empty() {
        message.name = participant;
    }
    for (name, value) in fields.rest() {
        // Clients send back what they were given, empty fields included.
        if !unsupported::says_nothing(&value) {
            let path = format!("{path}.{name}");
            return Err(ApiError::param(&path, format!("`{path}` is not supported")).code("unsupported_parameter"));
        }
    }
    Ok(Message { role, ..message })
}

/// What a message says of calls, results and thoughts, without its role and content.
fn calls_and_results(path: &str, role: &str, fields: &mut Fields, dialect: Dialect) -> Result<Message, ApiError> {
    let mut message = Message::default();
    let mut text =
        |name: &str| fields.take::<String>(name).map_err(|error| at(path, error)).map(Option::unwrap_or_default);
    match (role, dialect) {
        ("assistant", Dialect::OpenAi) => {
            // vLLM has called it both.
            message.reasoning = text("reasoning_content")?;
            let newer = text("reasoning")?;
            if message.reasoning.is_empty() {
                message.reasoning = newer;
            }
        }
        ("assistant", Dialect::Ollama) => message.reasoning = text("thinking")?,
        ("tool", _) => {
            message.tool_call_id = text("tool_call_id")?;
            if dialect == Dialect::Ollama {
                message.name = text("tool_name")?;
            } else if message.tool_call_id.is_empty() {
                let path = format!("{path}.tool_call_id");
                return Err(ApiError::param(
                    &path,
                    format!("`{path}` is missing; send the id of the call that it answers"),
                ));
            }
        }
        _ => {}
    }
    if let Some(calls) =
        fields.peek("tool_calls").filter(|calls| role == "assistant" && !unsupported::says_nothing(calls))
    {
        message.tool_calls = tools::calls(&format!("{path}.tool_calls"), calls, dialect == Dialect::OpenAi)?;
        fields.raw("tool_calls");
    }
    Ok(message)
}

/// OpenAI's rule for the name of a participant, which a template may put beside its control tokens.
fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    let odd = |letter: char| letter.is_whitespace() || "<|\\/>".contains(letter);
    if name.chars().count() > NAME_CHARS_MAX || name.contains(odd) {
        let message =
            format!("`{path}` has to be at most {NAME_CHARS_MAX} characters, without white space and < | \\ / >");
        return Err(ApiError::param(path, message));
    }
    Ok(())
}

/// The text of a message. An assistant's own message comes back as it was given: its `content` may be null, and a refusal, or a
/// call, is what it said.
fn content(role: &str, path: &str, value: Option<Value>, may_be_absent: bool) -> Result<String, ApiError> {
    let may_refuse = role == "assistant";
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let parts = parts.iter().enumerate();
            parts.map(|(index, part)| text_of(&format!("{path}[{index}]"), part, may_refuse)).collect()
        }
        Some(Value::Null) if may_refuse => Ok(String::new()),
        None if may_be_absent => Ok(String::new()),
        None | Some(Value::Null) => Err(ApiError::param(path, format!("`{path}` is missing"))),
        Some(other) => {
            let message = format!("`{path}` has to be a string or a list of text parts, not {}", shown(&other));
            Err(ApiError::param(path, message))
        }
    }
}

fn text_of<'p>(path: &str, part: &'p Value, may_refuse: bool) -> Result<&'p str, ApiError> {
    match (part["type"].as_str(), part["text"].as_str(), part["refusal"].as_str()) {
        (Some("text"), Some(text), _) => Ok(text),
        (Some("refusal"), _, Some(refusal)) if may_refuse => Ok(refusal),
        _ => {
            let message = format!("`{path}` has to be {{\"type\": \"text\", \"text\": …}}; models here read text only");
            Err(ApiError::param(path, message))
        }
    }
}

fn at(path: &str, mut error: ApiError) -> ApiError {
    error.body.param = error.body.param.map(|param| format!("{path}.{param}"));
    error
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use slm_proto::v1::sampling::Constraint;

    use super::{super::names::FieldNames, *};

    fn request(change: Value) -> Result<(GenerateRequest, ResponseOptions), ApiError> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        parse(Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn every_parameter_arrives() {
        let (request, options) = request(json!({
            "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1,
            "presence_penalty": 1, "frequency_penalty": -1, "seed": 7, "max_completion_tokens": 9, "stop": "x",
            "stop_token_ids": [1, 2], "ignore_eos": true, "priority": -2, "logprobs": true,
            "top_logprobs": 3, "stream": true, "n": 3,
            "stream_options": {"include_usage": true}, "explain": true, "metadata": {"lang": "de"},
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "reasoning_content": ""},
                {"role": "user", "content": "d", "name": "bob"},
            ],
            "parse_special_tokens": true, "return_tokens_as_token_ids": true, "logit_bias": {"50256": -100, "7": 1.5},
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}},
        }))
        .expect("good");
        let sampling = request.sampling.expect("sampling");
        assert_eq!(sampling.logit_bias, [(50256, -100.0), (7, 1.5)].into());
        assert_eq!(sampling.constraint, Some(Constraint::JsonSchema(r#"{"type":"null"}"#.into())));
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (Some(0.5), Some(0), Some(7)));
        assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (Some(1.0), Some(-1.0)));
        assert_eq!((request.max_tokens, request.logprobs, request.stop), (Some(9), Some(3), vec!["x".to_owned()]));
        assert_eq!((request.stop_token_ids, request.ignore_eos, request.priority), (vec![1, 2], true, -2));
        assert_eq!(request.metadata["lang"], "de");
        let constraint = "response_format.json_schema.schema";
        let names =
            FieldNames { max_tokens: "max_completion_tokens", constraint, ..FieldNames::new(CompletionKind::Chat) };
        let choices = Choices { given: 3, computed: 3 };
        assert_eq!(
            options,
            ResponseOptions { stream: true, include_usage: true, explain: true, token_ids: true, choices, names }
        );
        assert_eq!(request.parse_special_tokens, Some(true));
        let Some(Input::Messages(messages)) = request.input else { panic!("messages") };
        let turn = |m: &Message| format!("{} {} {}", m.role, m.content, m.name);
        let turns: Vec<_> = messages.messages.iter().map(turn).collect();
        assert_eq!(turns, ["system ab ", "assistant c ", "user d bob"]);
    }

    #[test]
    fn null_is_a_field_that_is_not_there() {
        let names = params::NAMES.into_iter().chain(["max_completion_tokens", "top_logprobs", "tools"]);
        let nulls: Map<String, Value> =
            names.filter(|name| *name != "model").map(|name| (name.to_owned(), Value::Null)).collect();
        let (plain, _) = request(json!({})).expect("good");
        assert_eq!(request(Value::Object(nulls)).expect("nulls").0, plain);
        let within = json!({
            "stream": true, "stream_options": {"include_usage": null}, "stop": ["a", null], "metadata": {"lang": null},
            "messages": [{"role": "user", "content": "hi", "name": null, "audio": null, "function_call": null}],
        });
        let (within, options) = request(within).expect("nulls within");
        assert_eq!((within.stop, within.metadata.len(), options.include_usage), (vec!["a".to_owned()], 0, false));
    }

    #[test]
    fn an_integer_may_be_written_as_a_number() {
        let (request, _) = request(json!({
            "max_tokens": 16.0, "seed": 1.0, "n": 1.0, "top_k": 1.0, "priority": -1.0, "logprobs": true, "top_logprobs": 2.0,
            "stop_token_ids": [3.0], "stream": true, "stream_options": {"include_obfuscation": true},
        }))
        .expect("good");
        let sampling = request.sampling.expect("sampling");
        assert_eq!((request.max_tokens, sampling.seed, sampling.top_k), (Some(16), Some(1), Some(1)));
        assert_eq!((request.priority, request.logprobs, request.stop_token_ids), (-1, Some(2), vec![3]));
    }

    #[test]
    fn an_assistants_message_comes_back_as_it_was_given() {
        let (request, _) = request(json!({"messages": [
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": null, "annotations": []},
            {"role": "assistant", "content": null, "refusal": "I cannot."},
            {"role": "assistant", "refusal": "I cannot."},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
            {"role": "user", "content": "hi", "refusal": null},
        ]}))
        .expect("good");
        let Some(Input::Messages(messages)) = request.input else { panic!("messages") };
        let contents: Vec<_> = messages.messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(contents, ["", "I cannot.", "I cannot.", "ab", "hi"]);
    }

    #[test]
    fn calls_and_their_results_are_messages() {
        let (request, _) = request(json!({
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "reasoning_content": "hm", "refusal": null, "tool_calls": [
                    {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                ]},
                {"role": "tool", "content": [{"type": "text", "text": "42"}], "tool_call_id": "x"},
                {"role": "assistant", "tool_calls": [{"id": "y", "function": {"name": "f", "arguments": "{}"}}]},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto", "parallel_tool_calls": true,
        }))
        .expect("good");
        let Some(Input::Messages(messages)) = request.input else { panic!("messages") };
        let [_, called, result, _] = &messages.messages[..] else { panic!("four") };
        assert_eq!((called.content.as_str(), called.reasoning.as_str(), called.tool_calls.len()), ("", "hm", 1));
        assert_eq!((result.role.as_str(), result.content.as_str(), result.tool_call_id.as_str()), ("tool", "42", "x"));
        assert_eq!((request.tools.len(), request.parallel_tool_calls), (1, Some(true)));
    }

    #[test]
    fn refusals_name_the_call() {
        for (change, param, message) in [
            (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].tool_call_id", "is missing"),
            (
                json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}),
                "messages[0].tool_calls[0].function",
                "is missing",
            ),
            (
                json!({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}),
                "messages[0].tool_calls",
                "not supported",
            ),
        ] {
            let error = request(change.clone()).expect_err(param);
            assert_eq!((error.status.as_u16(), error.body.param.as_deref()), (400, Some(param)), "{change}");
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }

    #[test]
    fn refusals_name_the_parameter() {
        let cases = [
            (json!({"messages": []}), "messages", "is empty"),
            (json!({"messages": null}), "messages", "is missing"),
            (
                json!({"messages": [{"role": "function", "content": "x"}]}),
                "messages[0].role",
                "system, developer, user, assistant or tool, not \"function\"",
            ),
            (json!({"messages": [{"content": "x"}]}), "messages[0].role", "missing"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content", "missing"),
            (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content", "not 5"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
                "messages[0].content[0]",
                "text only",
            ),
            (
                json!({"messages": [{"role": "user", "content": "x", "name": 1}]}),
                "messages[0].name",
                "has to be a string",
            ),
            (
                json!({"messages": [{"role": "user", "content": "x", "name": "a|b"}]}),
                "messages[0].name",
                "without white",
            ),
            (json!({"messages": [{"role": "user", "content": "x", "nam": "n"}]}), "messages[0].nam", "not supported"),
            (json!({"messages": [{"role": 1, "content": "x"}]}), "messages[0].role", "has to be a string"),
            (json!({"temperature": "hot"}), "temperature", "`temperature` has to be a number, not \"hot\""),
            (json!({"logit_bias": {"a": 1}}), "logit_bias.a", "keys of `logit_bias` have to be token ids, not \"a\""),
            (json!({"logit_bias": {"7": "x"}}), "logit_bias.7", "`logit_bias.7` has to be a number"),
            (json!({"logit_bias": [1]}), "logit_bias", "has to be an object, not a list"),
            (json!({"max_tokens": -1}), "max_tokens", "an integer of at least 1, not -1"),
            (json!({"max_completion_tokens": -1}), "max_completion_tokens", "an integer of at least 1, not -1"),
            (json!({"max_tokens": 1.5}), "max_tokens", "an integer of at least 1, not 1.5"),
            (json!({"logprobs": true, "top_logprobs": -1}), "top_logprobs", "an integer from 0 to 20, not -1"),
            (json!({"top_k": -2}), "top_k", "an integer of at least 0, or -1 for all tokens, not -2"),
            (json!({"messages": [{"role": "user", "content": null}]}), "messages[0].content", "missing"),
            (json!({"messages": [{"role": "assistant"}]}), "messages[0].content", "missing"),
            (
                json!({"messages": [{"role": "user", "content": "x", "refusal": "no"}]}),
                "messages[0].refusal",
                "not supported",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]}),
                "messages[0].content[0]",
                "text only",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "x", "refusal": 1}]}),
                "messages[0].refusal",
                "a string",
            ),
            (
                json!({"stream": true, "stream_options": {"include_obfuscation": 1}}),
                "stream_options.include_obfuscation",
                "true or false",
            ),
            (
                json!({"stream": true, "stream_options": {"continuous_usage_stats": true}}),
                "stream_options.continuous_usage_stats",
                "not supported",
            ),
            (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_completion_tokens", "differ"),
            (json!({"stop": 1}), "stop", "a string or a list of strings"),
            (json!({"stop": ["a", 1]}), "stop[1]", "a string"),
            (json!({"top_logprobs": 2}), "top_logprobs", "only for `logprobs: true`"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options", "only for `stream: true`"),
            (json!({"metadata": {"a": 1}}), "metadata.a", "a string"),
            (json!({"parse_special_tokens": "yes"}), "parse_special_tokens", "true or false"),
            (json!({"n": 65}), "n", "from 1 to 64"),
            (json!({"maxtokens": 2}), "maxtokens", "did you mean `max_tokens`"),
        ];
        for (change, param, message) in cases {
            let error = request(change.clone()).expect_err(param);
            assert_eq!((error.status.as_u16(), error.body.param.as_deref()), (400, Some(param)), "{change}");
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }
}
