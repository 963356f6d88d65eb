//! Unsupported parameters: refused by name, unless their value is harmless or the default.

use serde_json::Value;
use slm_crds::nearest::{did_you_mean, nearest};

use super::{
    error::ApiError,
    fields::{Fields, integer, shown},
};

/// Book-keeping of other services. They change nothing about an answer, so leaving them out changes nothing either.
const HARMLESS: [&str; 8] = [
    "user",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "prompt_cache_options",
];

/// Parameters whose `false` says something, where they are not read.
const TRUE_UNLESS_SAID: [&str; 2] = ["add_generation_prompt", "add_special_tokens"];

/// Parameters of OpenAI's API that are not supported, and the value that means "not used".
type Neutral = fn(&Value) -> bool;
const UNSUPPORTED: [(&str, Neutral); 16] = [
    ("best_of", is_one),
    ("tools", is_empty),
    ("tool_choice", is_no_tool),
    ("functions", is_empty),
    ("function_call", is_no_tool),
    ("echo", is_false),
    ("suffix", is_empty),
    ("modalities", is_text_only),
    ("audio", never),
    ("prediction", never),
    ("reasoning_effort", is_none_word),
    ("verbosity", is_medium),
    ("web_search_options", never),
    ("max_prompt_tokens", never),
    ("best_effort", never),
    ("moderation", never),
];

/// # Errors
/// The first parameter that is left over and means something.
pub(crate) fn refuse(rest: Fields, known: &[&str]) -> Result<(), ApiError> {
    for (name, value) in rest.rest() {
        if HARMLESS.contains(&name.as_str()) {
            continue;
        }
        match UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
            Some((_, neutral)) if neutral(&value) => {}
            Some(_) => {
                let message = format!("`{name}` is not supported here with this value; leave it out");
                return Err(ApiError::param(&name, message).code("unsupported_parameter"));
            }
            None => {
                let shown: String = name.chars().take(80).collect();
                let message =
                    format!("unknown parameter `{shown}`{}", did_you_mean(&nearest(&shown, known.iter().copied())));
                return Err(ApiError::param(&shown, message).code("unknown_parameter"));
            }
        }
    }
    Ok(())
}

/// What another API makes of fields that are left over.
pub(crate) struct LeftOver<'f> {
    /// Fields that change nothing about an answer.
    pub(crate) harmless: &'f [&'f str],
    /// Fields of that API that are not supported.
    pub(crate) unsupported: &'f [&'f str],
    /// Fields that are read, for suggestions.
    pub(crate) read: &'f [&'f str],
}

impl LeftOver<'_> {
    /// # Errors
    /// The first field that is left over and means something.
    pub(crate) fn refuse(&self, rest: Fields) -> Result<(), ApiError> {
        let meant = |(name, value): &(String, Value)| {
            let name = name.as_str();
            !self.harmless.contains(&name) && (TRUE_UNLESS_SAID.contains(&name) || !says_nothing(value))
        };
        let Some((name, value)) = rest.rest().find(meant) else { return Ok(()) };
        let name: String = name.chars().take(80).collect();
        if self.unsupported.contains(&name.as_str()) {
            let message = format!("`{name}` is not supported here with the value {}; leave it out", shown(&value));
            return Err(ApiError::param(&name, message).code("unsupported_parameter"));
        }
        let near = did_you_mean(&nearest(&name, self.read.iter().copied()));
        Err(ApiError::param(&name, format!("unknown parameter `{name}`{near}")).code("unknown_parameter"))
    }
}

/// Refuses what is left of the object at `path`, unless it says nothing.
pub(super) fn nothing_else(path: &str, rest: Fields) -> Result<(), ApiError> {
    match rest.rest().find(|(_, value)| !says_nothing(value)) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(80).collect();
            let path = format!("{path}.{name}");
            Err(ApiError::param(&path, format!("`{path}` is not supported")).code("unsupported_parameter"))
        }
    }
}

/// Whether a value is only a way to say nothing, such as clients that send every field do.
pub(crate) fn says_nothing(value: &Value) -> bool {
    is_empty(value) || is_false(value)
}

fn never(_: &Value) -> bool {
    false
}

fn is_one(value: &Value) -> bool {
    integer(value) == Some(1)
}

fn is_false(value: &Value) -> bool {
    value == false
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn is_no_tool(value: &Value) -> bool {
    value == "none" || value == "auto"
}

/// OpenAI's default.
fn is_medium(value: &Value) -> bool {
    value == "medium"
}

fn is_none_word(value: &Value) -> bool {
    value == "none"
}

fn is_text_only(value: &Value) -> bool {
    value == &serde_json::json!(["text"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_means_something_is_refused_by_name() {
        let cases = [
            (json!({"user": "u", "store": true, "best_of": 1, "tools": []}), None),
            (json!({"echo": false, "suffix": null, "tool_choice": "none"}), None),
            (
                json!({"verbosity": "medium", "parallel_tool_calls": false, "service_tier": "auto", "modalities": ["text"]}),
                None,
            ),
            (json!({"verbosity": "low"}), Some(("verbosity", "not supported"))),
            (json!({"best_of": 2}), Some(("best_of", "`best_of` is not supported here with this value; leave it out"))),
            (json!({"tools": [{}]}), Some(("tools", "`tools` is not supported"))),
            (
                json!({"temprature": 1}),
                Some(("temprature", "unknown parameter `temprature`; did you mean `temperature`?")),
            ),
            (json!({"zzzzzz": 1}), Some(("zzzzzz", "unknown parameter `zzzzzz`"))),
        ];
        for (request, expected) in cases {
            let fields = Fields::new(request.as_object().expect("an object").clone());
            match (refuse(fields, &["temperature", "top_p"]), expected) {
                (Ok(()), None) => {}
                (Err(error), Some((param, message))) => {
                    assert_eq!(error.body.param.as_deref(), Some(param));
                    assert!(error.body.message.contains(message), "{}", error.body.message);
                }
                (outcome, expected) => panic!("{request}: {outcome:?} instead of {expected:?}"),
            }
        }
    }
}
