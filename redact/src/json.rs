//! Strings of a JSON text, where they stand in it.

use std::{ops::Range, rc::Rc};

use serde::de::IgnoredAny;

/// A string of a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonString {
    /// What it says.
    pub(crate) value: String,
    /// Where it stands, without its quotes.
    pub(crate) raw: Range<usize>,
    /// The key that it is a value of, also within an array; `None` for a key itself.
    pub(crate) key: Option<Rc<str>>,
    /// For each byte of the value, and its end, the place after `raw.start`; empty if nothing is escaped.
    offsets: Vec<usize>,
}

impl JsonString {
    /// The place in the raw text, after its start, of a place in the value.
    pub(crate) fn offset(&self, at: usize) -> usize {
        self.offsets.get(at).copied().unwrap_or(at)
    }
}

/// An object or an array that is open.
struct Open {
    is_object: bool,
    /// The last key; that of an array is the key that the array is a value of.
    key: Option<Rc<str>>,
    /// Whether the next string is a key.
    awaits_key: bool,
}

/// The strings of a JSON text in their order; `None` for a text that is no object, array or string of JSON.
pub(crate) fn strings(text: &str) -> Option<Vec<JsonString>> {
    if !text.trim_start().starts_with(['{', '[', '"']) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let bytes = text.as_bytes();
    let mut strings = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    // The text is valid, so the structure needs no checks.
    while at < bytes.len() {
        match bytes[at] {
            b'{' => open.push(Open { is_object: true, key: None, awaits_key: true }),
            b'[' => {
                let key = open.last().and_then(|within| within.key.clone());
                open.push(Open { is_object: false, key, awaits_key: false });
            }
            b'}' | b']' => drop(open.pop()),
            b',' => {
                if let Some(within) = open.last_mut() {
                    within.awaits_key = within.is_object;
                }
            }
            b'"' => {
                let end = end_of_string(bytes, at + 1)?;
                let mut string = read(text, at + 1..end)?;
                match open.last_mut() {
                    Some(within) if within.awaits_key => {
                        within.awaits_key = false;
                        within.key = Some(string.value.as_str().into());
                    }
                    within => string.key = within.and_then(|within| within.key.clone()),
                }
                strings.push(string);
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    Some(strings)
}

/// The place of the quote that ends a string which starts at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Reads a string; `None` for half a surrogate pair, which no string of Rust can say.
fn read(text: &str, raw: Range<usize>) -> Option<JsonString> {
    let inner = &text[raw.clone()];
    if !inner.contains('\\') {
        return Some(JsonString { value: inner.to_owned(), raw, key: None, offsets: Vec::new() });
    }
    let value: String = serde_json::from_str(&text[raw.start - 1..=raw.end]).ok()?;
    let bytes = inner.as_bytes();
    let mut offsets = Vec::with_capacity(value.len() + 1);
    let mut at = 0;
    for character in value.chars() {
        offsets.extend(std::iter::repeat_n(at, character.len_utf8()));
        at += match (bytes[at], bytes.get(at + 1)) {
            // Characters beyond the basic plane are a pair of escapes.
            (b'\\', Some(b'u')) => 6 * character.len_utf16(),
            (b'\\', _) => 2,
            _ => character.len_utf8(),
        };
    }
    offsets.push(at);
    Some(JsonString { value, raw, key: None, offsets })
}

/// A value as it stands within a string of JSON.
pub(crate) fn escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(Option<String>, String)> {
        let strings = strings(text).expect("JSON").into_iter();
        strings.map(|string| (string.key.map(|key| key.to_string()), string.value)).collect()
    }

    #[test]
    fn strings_know_their_keys() {
        let text = r#"{"a": "b", "c": ["d", {"e": "f"}, "g", 1], "h": {"i": [["j"]]}, "k": null, "l": "m"}"#;
        let found = told(text);
        let of = |key: &str, value: &str| (Some(key.to_owned()), value.to_owned());
        let values: Vec<_> = found.iter().filter(|(key, _)| key.is_some()).cloned().collect();
        assert_eq!(values, [of("a", "b"), of("c", "d"), of("e", "f"), of("c", "g"), of("i", "j"), of("l", "m")]);
        assert_eq!(found.len() - values.len(), 7);
        assert_eq!(told(r#" "alone" "#), [(None, "alone".to_owned())]);
    }

    #[test]
    fn places_are_those_of_the_raw_text() {
        let text = r#"["aé\u00e9\n\"\ud83d\ude00z😀"]"#;
        let string = &strings(text).expect("JSON")[0];
        assert_eq!(string.value, "aéé\n\"😀z😀");
        let raw = &text[string.raw.clone()];
        let pieces: Vec<_> = string
            .value
            .char_indices()
            .map(|(at, character)| &raw[string.offset(at)..string.offset(at + character.len_utf8())])
            .collect();
        assert_eq!(pieces, ["a", "é", "\\u00e9", "\\n", "\\\"", "\\ud83d\\ude00", "z", "😀"]);
    }

    #[test]
    fn other_texts_are_none() {
        for text in ["", "4111", "{\"a\": }", "hello", "{\"a\": 1} x", "[\"\\ud800\"]"] {
            assert_eq!(strings(text), None, "{text}");
        }
        assert_eq!(escaped("a\"\\\n\u{1}é"), "a\\\"\\\\\\n\\u0001é");
    }
}
