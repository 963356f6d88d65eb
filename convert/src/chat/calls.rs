//! Calls as text, for templates that write none themselves.

use serde_json::Value;

use super::ChatToolCall;

/// How calls with arguments in JSON are written. Parts that may be control tokens stand alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallForm {
    /// Before all calls: a mark, and text.
    pub before: [&'static str; 2],
    /// A call: a mark and text, after which the name comes; a mark or text, and text, after which the arguments come; text, a mark.
    pub item: [&'static str; 6],
    /// Between two calls.
    pub between: &'static str,
    /// After all calls: text, and a mark.
    pub after: [&'static str; 2],
}

impl CallForm {
    /// Nothing but objects, a line each.
    pub const JSON: Self = Self {
        before: ["", ""],
        item: ["", "{\"name\": \"", "", "\", \"arguments\": ", "}", ""],
        between: "\n",
        after: ["", ""],
    };

    /// The text of these calls.
    #[must_use]
    pub fn write(&self, calls: &[ChatToolCall]) -> String {
        let [mark, text, separator, more, end, close] = self.item;
        let item = |call: &ChatToolCall| {
            let arguments = spaced(&call.arguments);
            [mark, text, &call.name, separator, more, &arguments, end, close].concat()
        };
        let items: Vec<String> = calls.iter().map(item).collect();
        [&self.before.concat(), &items.join(self.between), &self.after.concat()].map(String::as_str).concat()
    }
}

/// JSON as models are shown it, with a space after each comma and colon.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), spaced(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
