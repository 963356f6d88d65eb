//! Sets of tools, and prompts for them.

use serde_json::{Value, json};
use slm_proto::v1::Tool;

/// Sets of different sizes, with schemas of different kinds.
pub(crate) fn sets() -> Vec<Vec<(&'static str, Value)>> {
    let city = json!({"type": "string", "minLength": 2, "maxLength": 20});
    vec![
        vec![(
            "get_weather",
            json!({
                "type": "object", "required": ["city"], "additionalProperties": false,
                "properties": {"city": city, "unit": {"enum": ["celsius", "fahrenheit"]}},
            }),
        )],
        vec![("add", numbers()), ("multiply", numbers()), ("now", json!({}))],
        vec![
            (
                "send_mail",
                json!({
                    "type": "object", "required": ["to", "subject"], "additionalProperties": false,
                    "properties": {
                        "to": {"type": "string", "pattern": "^[a-z]{1,10}@example\\.org$"}, "subject": {"type": "string", "maxLength": 30},
                        "copies": {"type": "array", "items": {"enum": ["anna", "bob"]}, "maxItems": 2},
                    },
                }),
            ),
            (
                "find_mail",
                json!({"type": "object", "properties": {"unread": {"type": "boolean"}}, "additionalProperties": false}),
            ),
        ],
        vec![(
            "draw",
            json!({
                "type": "object", "required": ["shape"], "additionalProperties": false,
                "properties": {"shape": {"anyOf": [{"$ref": "#/$defs/circle"}, {"$ref": "#/$defs/box"}]}},
                "$defs": {
                    "circle": {"type": "object", "properties": {"radius": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["radius"], "additionalProperties": false},
                    "box": {"type": "object", "properties": {"side": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["side"], "additionalProperties": false},
                },
            }),
        )],
        // Calls of these may be many.
        vec![("lights_on", json!({})), ("lights_off", json!({}))],
    ]
}

fn numbers() -> Value {
    let number = json!({"type": "integer", "minimum": -1000, "maximum": 1000});
    json!({"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"], "additionalProperties": false})
}

/// A tool of `slm.v1`; a schema that says nothing is left out.
pub(crate) fn tool((name, schema): &(&str, Value)) -> Tool {
    let parameters = if *schema == json!({}) { String::new() } else { schema.to_string() };
    Tool { name: (*name).to_owned(), description: format!("Does {name}."), parameters, strict: false }
}

/// Two hundred different ones.
pub(crate) fn prompts() -> Vec<String> {
    let things = [
        "the weather in Oslo",
        "12 and 30",
        "a mail to Anna",
        "a circle",
        "the lights",
        "Paris",
        "my holidays",
        "a poem",
        "nothing at all",
        "the colour blue",
        "three cats",
        "your name",
        "ein Haus",
        "la lune",
        "x = 4",
        "<tool_call>",
        "{\"name\": 1}",
        "a very long story about the sea",
        "7 times 6",
        "?",
    ];
    let asks = [
        "Tell me about",
        "What is",
        "Please do something with",
        "I need",
        "Hi! Any idea about",
        "Count",
        "Explain",
        "Stop",
        "Who knows",
        "Quick:",
    ];
    things.iter().flat_map(|thing| asks.iter().map(move |ask| format!("{ask} {thing}"))).collect()
}
