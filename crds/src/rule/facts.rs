//! Facts: the variables of a request for rules, bounded whatever the request's size.

use std::{collections::HashMap, sync::Arc};

use super::value::{Key, Value};

/// Bound on visible messages: the last ones.
pub const MESSAGES_MAX: usize = 64;
/// Bound on visible text in bytes: of `text`, and of all `messages` together.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Variables of one request. Built once for each request, cheap to clone.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Values in the order of [`super::VARIABLES`].
    pub(super) values: [Value; 4],
}

/// A message as visible to rules.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// `user`, `assistant`, `system`, …
    pub role: &'a str,
    /// Text of the message.
    pub content: &'a str,
}

impl Facts {
    /// `text` is the last user message or the raw prompt, `model` the requested name. A text longer than
    /// [`TEXT_BYTES_MAX`] is truncated at its end; of messages the last ones that fit are kept.
    pub fn new<'a>(
        model: &str,
        text: &str,
        messages: impl IntoIterator<Item = Turn<'a>, IntoIter: DoubleEndedIterator>,
        metadata: &HashMap<String, String>,
    ) -> Self {
        let entries = metadata.iter().map(|(key, value)| (Key::String(key.as_str().into()), Value::text(value)));
        Self {
            values: [
                Value::text(beginning(text, TEXT_BYTES_MAX)),
                Value::List(last(messages.into_iter()).into()),
                Value::Map(Arc::new(entries.collect())),
                Value::text(beginning(model, TEXT_BYTES_MAX)),
            ],
        }
    }
}

fn last<'a>(messages: impl DoubleEndedIterator<Item = Turn<'a>>) -> Vec<Value> {
    let mut left = TEXT_BYTES_MAX;
    let mut kept = Vec::new();
    for turn in messages.rev().take(MESSAGES_MAX) {
        let role = beginning(turn.role, left);
        let content = beginning(turn.content, left - role.len());
        left -= role.len() + content.len();
        let fields = [("role", role), ("content", content)];
        let fields = fields.map(|(key, text)| (Key::String(key.into()), Value::text(text)));
        kept.push(Value::Map(Arc::new(fields.into())));
        if left == 0 {
            break;
        }
    }
    kept.reverse();
    kept
}

fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
