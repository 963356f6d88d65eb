//! A request as the JSON of `/chat/completions`. Pure.
//!
//! What OpenAI's API has no word for is refused by name, never dropped: an answer that ignored it would look like one that did not.
//! Left out is what concerns the swarm alone (`metadata`, `priority`, `tenant`), and what an earlier answer thought (`reasoning`), which
//! these endpoints do not take back.

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
    let messages = conversation.messages.iter().map(|message| self::message(message, texts));
    body.insert("messages".to_owned(), messages.collect());
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

fn message(message: &Message, texts: &mut impl Texts) -> Value {
    let mut said = Map::new();
    said.insert("role".to_owned(), message.role.as_str().into());
    said.insert("content".to_owned(), texts.text(&message.content).into());
    if !message.name.is_empty() {
        said.insert("name".to_owned(), message.name.as_str().into());
    }
    if !message.tool_call_id.is_empty() {
        said.insert("tool_call_id".to_owned(), message.tool_call_id.as_str().into());
    }
    if !message.tool_calls.is_empty() {
        let call = |ToolCall { id, name, arguments }: &ToolCall| {
            let arguments = texts.json(arguments);
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
        };
        said.insert("tool_calls".to_owned(), message.tool_calls.iter().map(call).collect());
    }
    Value::Object(said)
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
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } })
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
