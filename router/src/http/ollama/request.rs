//! Bodies of `/api/chat` and `/api/generate`.

use serde_json::{Value, json};
use slm_proto::v1::{GenerateRequest, JsonObject, Message, Messages, generate_request::Input, sampling::Constraint};

use super::{options, without_tag};
use crate::http::{
    chat,
    error::ApiError,
    fields::{Fields, shown},
    tools,
    unsupported::LeftOver,
};

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: GenerateRequest,
    /// Whether to answer in lines; Ollama's default.
    pub(super) stream: bool,
    /// Without a prompt, Ollama loads the model and answers nothing.
    pub(super) loads: bool,
}

const CHAT: LeftOver<'_> = LeftOver {
    harmless: HARMLESS,
    unsupported: UNSUPPORTED,
    read: &["model", "messages", "stream", "options", "format", "tools", "think"],
};
const GENERATE: LeftOver<'_> = LeftOver {
    harmless: HARMLESS,
    unsupported: UNSUPPORTED,
    read: &["model", "prompt", "system", "raw", "suffix", "stream", "options", "format", "think"],
};
/// How long Ollama keeps a model loaded.
const HARMLESS: &[&str] = &["keep_alive"];
const UNSUPPORTED: &[&str] = &["tools", "images", "template", "context", "logprobs", "top_logprobs"];

pub(super) fn chat(mut fields: Fields) -> Result<Asked, ApiError> {
    let (mut request, stream) = common(&mut fields)?;
    let none = fields.peek("messages").is_none_or(|messages| messages.as_array().is_some_and(Vec::is_empty));
    if none {
        fields.raw("messages");
    } else {
        request.input = Some(Input::Messages(chat::messages(&mut fields, chat::Dialect::Ollama)?));
    }
    request.tools = fields.raw("tools").map_or(Ok(Vec::new()), |list| tools::tools("tools", &list))?;
    CHAT.refuse(fields)?;
    Ok(Asked { request, stream, loads: none })
}

pub(super) fn generate(mut fields: Fields) -> Result<Asked, ApiError> {
    let (mut request, stream) = common(&mut fields)?;
    let prompt = fields.take::<String>("prompt")?.unwrap_or_default();
    let system = fields.take::<String>("system")?.unwrap_or_default();
    request.suffix = fields.take("suffix")?.unwrap_or_default();
    // What is filled in is between two raw texts.
    let raw = fields.take::<bool>("raw")?.unwrap_or(false) || !request.suffix.is_empty();
    if raw && !system.is_empty() {
        let message = "`system` has no effect with `raw` or `suffix`: write it into `prompt`";
        return Err(ApiError::param("system", message));
    }
    let loads = prompt.is_empty() && request.suffix.is_empty();
    if raw {
        // A raw prompt says itself whether the model thinks.
        request.chat_template_kwargs.clear();
    }
    request.input = Some(if raw {
        Input::Prompt(prompt)
    } else {
        let said = |role: &str, content| Message { role: role.to_owned(), content, ..Default::default() };
        let system = Some(system).filter(|system| !system.is_empty()).map(|system| said("system", system));
        Input::Messages(Messages { messages: system.into_iter().chain([said("user", prompt)]).collect() })
    });
    GENERATE.refuse(fields)?;
    Ok(Asked { request, stream, loads })
}

fn common(fields: &mut Fields) -> Result<(GenerateRequest, bool), ApiError> {
    let model = fields.take::<String>("model")?.unwrap_or_default();
    let mut request = GenerateRequest { model: without_tag(&model).to_owned(), ..Default::default() };
    options::take(fields, &mut request)?;
    request.sampling.get_or_insert_default().constraint = format(fields)?;
    if let Some(thinks) = fields.take::<bool>("think")? {
        request.chat_template_kwargs = json!({ "enable_thinking": thinks }).to_string();
    }
    Ok((request, fields.take::<bool>("stream")?.unwrap_or(true)))
}

/// Any JSON object, or a JSON Schema of the answer.
fn format(fields: &mut Fields) -> Result<Option<Constraint>, ApiError> {
    match fields.raw("format") {
        None => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(Constraint::JsonObject(JsonObject {}))),
        Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema.to_string()))),
        Some(other) => {
            let message = format!("`format` has to be \"json\" or a JSON Schema, not {}", shown(&other));
            Err(ApiError::param("format", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_a_constraint() {
        let constraint = |format: Value| {
            let asked = generate(fields(&json!({"model": "m", "prompt": "p", "format": format})))?;
            Ok::<_, ApiError>(asked.request.sampling.and_then(|sampling| sampling.constraint))
        };
        assert_eq!(constraint(json!("")), Ok(None));
        assert_eq!(constraint(json!("json")), Ok(Some(Constraint::JsonObject(JsonObject {}))));
        let schema = Constraint::JsonSchema(r#"{"type":"null"}"#.into());
        assert_eq!(constraint(json!({"type": "null"})), Ok(Some(schema)));
        let refused = constraint(json!("xml")).expect_err("a word");
        assert!(refused.body.message.contains("has to be \"json\" or a JSON Schema, not \"xml\""), "{refused:?}");
    }

    fn fields(body: &Value) -> Fields {
        Fields::new(body.as_object().expect("an object").clone())
    }

    fn turns(request: &GenerateRequest) -> Vec<String> {
        let Some(Input::Messages(messages)) = &request.input else { panic!("messages: {request:?}") };
        messages.messages.iter().map(|message| format!("{}: {}", message.role, message.content)).collect()
    }

    #[test]
    fn a_chat_as_the_official_client_sends_it() {
        let asked = chat(fields(&json!({
            "model": "smollm2:latest", "stream": true, "tools": [], "format": "", "keep_alive": "5m", "think": false,
            "options": { "temperature": 0 },
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "hi", "images": null, "tool_calls": null },
            ],
        })))
        .expect("good");
        assert_eq!((asked.request.model.as_str(), asked.stream, asked.loads), ("smollm2", true, false));
        assert_eq!(asked.request.sampling.and_then(|sampling| sampling.temperature), Some(0.0));
        assert_eq!(
            turns(&chat(fields(&json!({ "messages": [{ "role": "user", "content": "hi" }] }))).expect("good").request),
            ["user: hi"]
        );
    }

    #[test]
    fn tools_and_thoughts_are_read() {
        let asked = chat(fields(&json!({
            "think": true,
            "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
            "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{ "function": { "name": "f", "arguments": { "a": 1 } } }] },
                { "role": "tool", "content": "42", "tool_name": "f" },
            ],
        })))
        .expect("good");
        assert_eq!(asked.request.tools[0].parameters, r#"{"type":"object"}"#);
        assert_eq!(asked.request.chat_template_kwargs, r#"{"enable_thinking":true}"#);
        let Some(Input::Messages(messages)) = asked.request.input else { panic!("messages") };
        let [_, called, result] = &messages.messages[..] else { panic!("three") };
        assert_eq!((called.tool_calls[0].arguments.as_str(), called.reasoning.as_str()), ("{\"a\":1}", "hm"));
        assert_eq!((result.name.as_str(), result.tool_call_id.as_str()), ("f", ""));
    }

    #[test]
    fn a_prompt_goes_through_the_template_unless_it_is_raw() {
        let of = |body: Value| generate(fields(&body)).expect("good");
        let asked = of(json!({ "model": "m", "prompt": "hi", "system": "Be brief.", "stream": false }));
        assert_eq!(
            (turns(&asked.request), asked.stream),
            (vec!["system: Be brief.".to_owned(), "user: hi".to_owned()], false)
        );
        let raw = of(json!({ "model": "m", "prompt": "once upon", "raw": true }));
        assert_eq!(raw.request.input, Some(Input::Prompt("once upon".to_owned())));
    }

    #[test]
    fn without_a_prompt_the_model_is_loaded() {
        for asked in [chat(fields(&json!({ "model": "m" }))), chat(fields(&json!({ "model": "m", "messages": [] })))] {
            assert!(asked.expect("good").loads);
        }
        assert!(generate(fields(&json!({ "model": "m" }))).expect("good").loads);
    }

    #[test]
    fn refusals_name_the_field() {
        let error = |parse: fn(Fields) -> Result<Asked, ApiError>, body: Value| {
            let error = parse(fields(&body)).expect_err("refused");
            (error.body.param.unwrap_or_default(), error.body.message)
        };
        let message = json!([{ "role": "user", "content": "hi" }]);
        for (parse, body, param, words) in [
            (
                chat as fn(Fields) -> _,
                json!({ "messages": message, "tools": [{ "type": "function" }] }),
                "tools[0].function",
                "is missing",
            ),
            (generate, json!({ "prompt": "a", "tools": [1] }), "tools", "not supported here with the value a list"),
            (chat, json!({ "messages": message, "think": "high" }), "think", "true or false, not \"high\""),
            (chat, json!({ "messages": message, "option": {"a": 1} }), "option", "did you mean `options`"),
            (chat, json!({ "messages": [{ "role": "ape", "content": "x" }] }), "messages[0].role", "not \"ape\""),
            (
                generate,
                json!({ "prompt": "a", "suffix": "b", "system": "s" }),
                "system",
                "no effect with `raw` or `suffix`",
            ),
            (generate, json!({ "prompt": "a", "raw": true, "system": "b" }), "system", "no effect with `raw`"),
            (generate, json!({ "prompt": ["a"] }), "prompt", "has to be a string, not a list"),
        ] {
            let (found, message) = error(parse, body);
            assert_eq!(found, param, "{message}");
            assert!(message.contains(words), "{message}");
        }
    }
}
