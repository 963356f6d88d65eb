//! Chat files beside a tokenizer: template, and special tokens. A model has them, and an adapter may have its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::chat::{ChatError, ChatTemplate};

/// Names of special tokens that transformers passes to templates; all end in `_token` or `_tokens`.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// A `tokenizer_config.json` names a handful.
const SPECIAL_TOKENS_MAX: usize = 1024;

/// Combined content of the chat files.
#[derive(Debug, Default)]
pub(crate) struct ChatFiles {
    /// Name of the file with the template.
    pub(crate) file: &'static str,
    pub(crate) source: Option<String>,
    /// Special tokens by name: a text, a list of texts, or null if a file says that there is none.
    pub(crate) tokens: BTreeMap<String, Value>,
    /// Warnings about content that cannot be used, without the path.
    pub(crate) notes: Vec<String>,
}

/// Reads them as transformers does: the template's own file takes precedence over `tokenizer_config.json`, and that
/// over `special_tokens_map.json`.
pub(crate) fn read(
    tokenizer_config: &Map<String, Value>,
    special_tokens_map: &Map<String, Value>,
    chat_template_json: &Map<String, Value>,
    chat_template_jinja: Option<&[u8]>,
) -> ChatFiles {
    let mut notes = Vec::new();
    let mut template = |file: &str, map: &Map<String, Value>| {
        let value = map.get("chat_template").filter(|value| !value.is_null())?;
        let text = template_text(value);
        if text.is_none() {
            notes.push(format!(
                "{file}: chat_template is neither a text nor a list or an object with a template called \"default\"; it \
                 is ignored"
            ));
        }
        text
    };
    let (file, source) = if let Some(bytes) = chat_template_jinja {
        ("chat_template.jinja", Some(String::from_utf8_lossy(bytes).into_owned()))
    } else if let Some(source) = template("chat_template.json", chat_template_json) {
        ("chat_template.json", Some(source))
    } else {
        ("tokenizer_config.json", template("tokenizer_config.json", tokenizer_config))
    };
    let mut tokens = tokens(special_tokens_map);
    for (name, value) in self::tokens(tokenizer_config) {
        // As in transformers, a null there does not hide what the other file says.
        if !value.is_null() || !tokens.contains_key(&name) {
            tokens.insert(name, value);
        }
    }
    ChatFiles { file, source, tokens, notes }
}

impl ChatFiles {
    /// The parsed template. `base` stands in for tokens that no file mentions: an adapter shares its base's tokens.
    pub(crate) fn template(&self, base: Option<&ChatTemplate>) -> Result<Option<ChatTemplate>, ChatError> {
        let Some(source) = self.source.clone() else { return Ok(None) };
        let mut tokens = base.map(ChatTemplate::tokens).unwrap_or_default();
        tokens.extend(self.tokens.clone());
        tokens.retain(|_, value| !value.is_null());
        let mut text = |name: &str| tokens.remove(name).and_then(|value| value.as_str().map(str::to_owned));
        let (bos, eos) = (text("bos_token"), text("eos_token"));
        Ok(Some(ChatTemplate::new(self.file, source, bos, eos)?.with_special_tokens(tokens)))
    }

    pub(crate) fn eos_token(&self) -> Option<&str> {
        self.tokens.get("eos_token")?.as_str()
    }

    /// Texts of all special tokens that the files name.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let lists = self.tokens.values().filter_map(Value::as_array).flatten();
        self.tokens.values().chain(lists).filter_map(Value::as_str)
    }
}

fn tokens(map: &Map<String, Value>) -> BTreeMap<String, Value> {
    let mut tokens = BTreeMap::new();
    for (name, value) in map.iter().take(SPECIAL_TOKENS_MAX) {
        if LISTS.contains(&name.as_str()) {
            match value {
                Value::Array(list) => {
                    let texts = list.iter().filter_map(token_text).map(Value::from).collect();
                    tokens.insert(name.clone(), Value::Array(texts));
                }
                // Named ones, which templates see by their own names.
                Value::Object(named) => {
                    tokens.extend(
                        named.iter().filter_map(|(name, value)| Some((name.clone(), token_text(value)?.into()))),
                    );
                }
                _ => {}
            }
        } else if name.ends_with("_token") && !name.starts_with("add_") {
            if let Some(text) = token_text(value) {
                tokens.insert(name.clone(), text.into());
            } else if value.is_null() {
                tokens.insert(name.clone(), Value::Null);
            }
        }
    }
    tokens
}

/// Text of a special token: a string, or an object with one.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned).filter(|text| !text.is_empty())
}

/// Text of a template: a string, or the `default` of named ones, in a list or in an object.
fn template_text(value: &Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"))?;
        default.get("template")?.as_str().map(str::to_owned)
    };
    let own = value.as_str().or_else(|| value.as_object()?.get("default")?.as_str());
    own.map(str::to_owned).or_else(|| value.as_array().and_then(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(config: &Value, map: &Value) -> ChatFiles {
        read(config.as_object().unwrap(), map.as_object().unwrap(), &Map::new(), None)
    }

    #[test]
    fn templates_see_all_special_tokens() {
        let config = json!({
            "chat_template": "{{ bos_token }}{{ unk_token }}{{ sep_token }}{{ image_token }}{{ additional_special_tokens | join }}{{ mask_token }}",
            "bos_token": {"content": "<b>"}, "unk_token": null, "add_bos_token": true,
            "additional_special_tokens": ["<x>", {"content": "<y>"}], "extra_special_tokens": {"image_token": "<i>"},
        });
        let files = files(&config, &json!({"unk_token": "<u>", "sep_token": "<s>"}));
        let template = files.template(None).unwrap().unwrap();
        assert_eq!(template.render(&[], true).unwrap(), "<b><u><s><i><x><y>");
    }

    #[test]
    fn a_base_stands_in_for_tokens_that_no_file_mentions() {
        let base = ChatTemplate::new("t", String::new(), Some("<b>".into()), Some("<e>".into())).unwrap();
        let config = json!({"chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": null});
        let template = files(&config, &json!({})).template(Some(&base)).unwrap().unwrap();
        assert_eq!(template.render(&[], true).unwrap(), "<e>");
    }

    #[test]
    fn a_template_of_another_type_is_told() {
        let named = json!({"chat_template": {"default": "a", "rag": "b"}});
        assert_eq!(files(&named, &json!({})).source.as_deref(), Some("a"));
        for other in [json!(5), json!([{"name": "rag", "template": "x"}]), json!({"rag": "x"})] {
            let files = files(&json!({"chat_template": other}), &json!({}));
            assert!(files.source.is_none() && files.notes[0].contains("chat_template"), "{:?}", files.notes);
        }
        assert!(files(&json!({"chat_template": null}), &json!({})).notes.is_empty());
    }
}
