//! Chat files beside a tokenizer: template, and begin and end tokens. A model has them, and an adapter may have its
//! own.

use serde_json::{Map, Value};

use crate::chat::{ChatError, ChatTemplate};

/// Combined content of the chat files.
#[derive(Debug, Default)]
pub(crate) struct ChatFiles {
    /// Name of the file with the template.
    pub(crate) file: &'static str,
    pub(crate) source: Option<String>,
    pub(crate) bos_token: Option<String>,
    pub(crate) eos_token: Option<String>,
}

/// Reads them as transformers does: the template's own file takes precedence over `tokenizer_config.json`, and that
/// over `special_tokens_map.json`.
pub(crate) fn read(
    tokenizer_config: &Map<String, Value>,
    special_tokens_map: &Map<String, Value>,
    chat_template_json: &Map<String, Value>,
    chat_template_jinja: Option<&[u8]>,
) -> ChatFiles {
    let token = |key: &str| {
        let settings = tokenizer_config.get(key).and_then(token_text);
        settings.or_else(|| special_tokens_map.get(key).and_then(token_text))
    };
    let (file, source) = if let Some(bytes) = chat_template_jinja {
        ("chat_template.jinja", Some(String::from_utf8_lossy(bytes).into_owned()))
    } else if let Some(source) = chat_template_json.get("chat_template").and_then(template_text) {
        ("chat_template.json", Some(source))
    } else {
        ("tokenizer_config.json", tokenizer_config.get("chat_template").and_then(template_text))
    };
    ChatFiles { file, source, bos_token: token("bos_token"), eos_token: token("eos_token") }
}

impl ChatFiles {
    pub(crate) fn template(&self) -> Result<Option<ChatTemplate>, ChatError> {
        let Some(source) = self.source.clone() else { return Ok(None) };
        ChatTemplate::new(self.file, source, self.bos_token.clone(), self.eos_token.clone()).map(Some)
    }
}

/// Text of a special token: a string, or an object with one.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned).filter(|text| !text.is_empty())
}

/// Text of a template: a string, or the `default` of a list of named ones.
fn template_text(value: &Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"))?;
        default.get("template")?.as_str().map(str::to_owned)
    };
    value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named))
}
