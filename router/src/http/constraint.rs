//! What an answer has to be: OpenAI's `response_format`, vLLM's `structured_outputs` and its older `guided_*`. All become the one
//! constraint of `slm.v1`, and so only one of them may be given.

use serde_json::{Map, Value};
use slm_proto::v1::{Choice, JsonObject, sampling::Constraint};

use super::{
    error::ApiError,
    fields::{Fields, read, shown},
    unsupported::nothing_else,
};

/// Fields taken by [`take`].
pub(super) const NAMES: [&str; 6] =
    ["response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"];

/// Where a constraint was found, as its caller calls it, and which one it is.
pub(super) type Found = (&'static str, Constraint);

/// The request's constraint, with the caller's name of it.
pub(super) fn take(fields: &mut Fields) -> Result<Option<Found>, ApiError> {
    let mut found = Vec::new();
    found.extend(response_format(fields)?);
    found.extend(structured_outputs(fields)?);
    if let Some(value) = fields.raw("guided_json") {
        found.push(("guided_json", schema("guided_json", &value)?));
    }
    if let Some(regex) = fields.take("guided_regex")? {
        found.push(("guided_regex", Constraint::Regex(regex)));
    }
    if let Some(value) = fields.raw("guided_choice") {
        found.push(("guided_choice", choice("guided_choice", &value)?));
    }
    if let Some(grammar) = fields.take("guided_grammar")? {
        found.push(("guided_grammar", Constraint::Grammar(grammar)));
    }
    one(found)
}

fn one(mut found: Vec<Found>) -> Result<Option<Found>, ApiError> {
    if let [(first, _), (second, _), ..] = found[..] {
        let message = format!("`{first}` and `{second}` are both given; an answer has one constraint at most");
        return Err(ApiError::param(second, message));
    }
    Ok(found.pop())
}

fn response_format(fields: &mut Fields) -> Result<Option<Found>, ApiError> {
    const AT: &str = "response_format";
    let Some(format) = fields.take::<Map<String, Value>>(AT)? else { return Ok(None) };
    let mut format = Fields::new(format);
    let kind = format.take::<String>("type").map_err(|error| error.within(AT))?;
    let found = match kind.as_deref() {
        Some("text") => None,
        Some("json_object") => Some((AT, Constraint::JsonObject(JsonObject {}))),
        Some("json_schema") => Some(json_schema(&mut format)?),
        kind => {
            let kind: String = kind.unwrap_or("nothing").chars().take(40).collect();
            let message = format!("`{AT}.type` has to be text, json_object or json_schema, not {kind}");
            return Err(ApiError::param("response_format.type", message));
        }
    };
    nothing_else(AT, format)?;
    Ok(found)
}

fn json_schema(format: &mut Fields) -> Result<Found, ApiError> {
    const AT: &str = "response_format.json_schema";
    const SCHEMA: &str = "response_format.json_schema.schema";
    let within = |error: ApiError| error.within(AT);
    let Some(value) = format.raw("json_schema") else {
        return Err(ApiError::param(AT, format!("`{AT}` is missing; send its `name` and `schema`")));
    };
    let mut wanted = Fields::new(read(AT, &value)?);
    // The name and the description say nothing about the answer, and every schema is kept strictly.
    wanted.take::<String>("name").map_err(within)?;
    wanted.take::<String>("description").map_err(within)?;
    wanted.take::<bool>("strict").map_err(within)?;
    let Some(value) = wanted.raw("schema") else {
        return Err(ApiError::param(SCHEMA, format!("`{SCHEMA}` is missing")));
    };
    nothing_else(AT, wanted)?;
    Ok((SCHEMA, schema(SCHEMA, &value)?))
}

fn structured_outputs(fields: &mut Fields) -> Result<Option<Found>, ApiError> {
    const AT: &str = "structured_outputs";
    let Some(outputs) = fields.take::<Map<String, Value>>(AT)? else { return Ok(None) };
    let mut outputs = Fields::new(outputs);
    let within = |error: ApiError| error.within(AT);
    let mut found = Vec::new();
    if let Some(value) = outputs.raw("json") {
        found.push(("structured_outputs.json", schema("structured_outputs.json", &value)?));
    }
    if let Some(regex) = outputs.take("regex").map_err(within)? {
        found.push(("structured_outputs.regex", Constraint::Regex(regex)));
    }
    if let Some(value) = outputs.raw("choice") {
        found.push(("structured_outputs.choice", choice("structured_outputs.choice", &value)?));
    }
    if let Some(grammar) = outputs.take("grammar").map_err(within)? {
        found.push(("structured_outputs.grammar", Constraint::Grammar(grammar)));
    }
    if outputs.take("json_object").map_err(within)? == Some(true) {
        found.push(("structured_outputs.json_object", Constraint::JsonObject(JsonObject {})));
    }
    nothing_else(AT, outputs)?;
    one(found)
}

/// A JSON Schema: an object, true or false, or its text.
fn schema(path: &str, value: &Value) -> Result<Constraint, ApiError> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(Constraint::JsonSchema(value.to_string())),
        Value::String(text) => Ok(Constraint::JsonSchema(text.clone())),
        other => {
            let message = format!("`{path}` has to be a JSON Schema, an object or its text, not {}", shown(other));
            Err(ApiError::param(path, message))
        }
    }
}

fn choice(path: &str, value: &Value) -> Result<Constraint, ApiError> {
    let strings = read::<Vec<Value>>(path, value)?;
    let strings = strings.iter().enumerate().map(|(index, string)| read(&format!("{path}[{index}]"), string));
    Ok(Constraint::Choice(Choice { strings: strings.collect::<Result<_, _>>()? }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(body: &Value) -> Result<Option<Found>, ApiError> {
        take(&mut Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn every_way_to_say_it_is_one_constraint() {
        let schema = |text: &str| Constraint::JsonSchema(text.to_owned());
        let choice = || Constraint::Choice(Choice { strings: vec!["a".into(), "b".into()] });
        let object = || Constraint::JsonObject(JsonObject {});
        let ordered = json!({"z": 1, "a": {"y": 2, "b": 3}});
        let format = |format: Value| json!({"response_format": format});
        let outputs = |outputs: Value| json!({"structured_outputs": outputs});
        let cases = [
            (json!({}), None),
            (format(json!({"type": "text"})), None),
            (format(json!({"type": "json_object"})), Some(("response_format", object()))),
            (
                format(json!({"type": "json_schema", "json_schema": {
                    "name": "x", "strict": true, "description": "d", "schema": ordered,
                }})),
                Some(("response_format.json_schema.schema", schema(r#"{"z":1,"a":{"y":2,"b":3}}"#))),
            ),
            (outputs(json!({})), None),
            (outputs(json!({"json": {}, "regex": null})), Some(("structured_outputs.json", schema("{}")))),
            (outputs(json!({"regex": "a+"})), Some(("structured_outputs.regex", Constraint::Regex("a+".into())))),
            (outputs(json!({"choice": ["a", "b"]})), Some(("structured_outputs.choice", choice()))),
            (outputs(json!({"json_object": true})), Some(("structured_outputs.json_object", object()))),
            (outputs(json!({"json_object": false, "disable_fallback": false})), None),
            (
                outputs(json!({"grammar": "start: \"a\""})),
                Some(("structured_outputs.grammar", Constraint::Grammar("start: \"a\"".into()))),
            ),
            (json!({"guided_json": "{\"type\": \"null\"}"}), Some(("guided_json", schema("{\"type\": \"null\"}")))),
            (json!({"guided_json": true}), Some(("guided_json", schema("true")))),
            (json!({"guided_regex": "a"}), Some(("guided_regex", Constraint::Regex("a".into())))),
            (json!({"guided_choice": ["a", "b"], "guided_json": null}), Some(("guided_choice", choice()))),
            (json!({"guided_grammar": "g"}), Some(("guided_grammar", Constraint::Grammar("g".into())))),
        ];
        for (body, expected) in cases {
            assert_eq!(taken(&body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn refusals_name_the_parameter() {
        let format = |format: Value| json!({"response_format": format});
        let cases = [
            (format(json!("json")), "response_format", "has to be an object, not \"json\""),
            (format(json!({})), "response_format.type", "text, json_object or json_schema, not nothing"),
            (format(json!({"type": "xml"})), "response_format.type", "not xml"),
            (format(json!({"type": 5})), "response_format.type", "`response_format.type` has to be a string, not 5"),
            (format(json!({"type": "json_schema"})), "response_format.json_schema", "is missing"),
            (
                format(json!({"type": "json_schema", "json_schema": {"name": "x"}})),
                "response_format.json_schema.schema",
                "is missing",
            ),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": 5}})),
                "response_format.json_schema.schema",
                "has to be a JSON Schema, an object or its text, not 5",
            ),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}})),
                "response_format.json_schema.strict",
                "true or false",
            ),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": {}, "shape": 1}})),
                "response_format.json_schema.shape",
                "is not supported",
            ),
            (
                format(json!({"type": "json_object", "schema": {"type": "null"}})),
                "response_format.schema",
                "not supported",
            ),
            (json!({"guided_choice": "a"}), "guided_choice", "a list"),
            (json!({"guided_choice": ["a", 1]}), "guided_choice[1]", "a string, not 1"),
            (json!({"guided_regex": []}), "guided_regex", "a string"),
            (
                json!({"structured_outputs": {"json": {}, "regex": "a"}}),
                "structured_outputs.regex",
                "`structured_outputs.json` and `structured_outputs.regex` are both given",
            ),
            (
                json!({"structured_outputs": {"structural_tag": "x"}}),
                "structured_outputs.structural_tag",
                "not supported",
            ),
            (
                json!({"response_format": {"type": "json_object"}, "guided_regex": "a"}),
                "guided_regex",
                "`response_format` and `guided_regex` are both given; an answer has one constraint at most",
            ),
        ];
        for (body, param, message) in cases {
            let error = taken(&body).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{body}");
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }
}
