//! The values of one request, and what stands for them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use crate::{
    find::{Finding, Redactor},
    json,
    kind::Kind,
    placeholder::{Placeholder, Start},
};

/// The values of one request, and what stands for them.
///
/// # Guarantees
/// - The same value, byte by byte, has the same placeholder in every text of the request; another value has another one.
/// - `restore(redact(text)) == text`, for every text. What looks like a placeholder and is the caller's own, such as `[EMAIL_1]` in
///   a question about placeholders, stays as it is and its number is not given to a value, where the text was told to
///   [`Redactor::vault`]; where it was not and the number is given already, it is replaced like a value.
/// - Values are not written by `Debug`.
pub struct Vault {
    redactor: Redactor,
    values: HashMap<Placeholder, Arc<str>>,
    placeholders: HashMap<Arc<str>, Placeholder>,
    /// In the order in which they were given.
    given: Vec<Placeholder>,
    /// What the caller's texts contain themselves.
    reserved: HashSet<Placeholder>,
    numbers: BTreeMap<Kind, u32>,
    counts: BTreeMap<Kind, usize>,
}

/// What a text is into which a value is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Any text: values are put as they are.
    Text,
    /// A JSON text: values are put into strings, escaped.
    Json,
}

impl Vault {
    /// Empty, with the numbers reserved that the request's texts contain themselves.
    pub(crate) fn new<'t>(redactor: Redactor, texts: impl IntoIterator<Item = &'t str>) -> Self {
        let reserved = texts.into_iter().flat_map(Placeholder::all).map(|(placeholder, _)| placeholder).collect();
        Self {
            redactor,
            values: HashMap::new(),
            placeholders: HashMap::new(),
            given: Vec::new(),
            reserved,
            numbers: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// The text with placeholders for its values.
    pub fn redact<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let findings = self.redactor.find(text);
        self.replace(text, text, &findings, |at| at)
    }

    /// A JSON text with placeholders for the values in its strings, keys as well; all else of it stays, byte by byte, and it stays
    /// valid. A string's key counts as the words before it: `{"password": "…"}`, `{"phone": "…"}`. Numbers stay. A text that is
    /// not an object, an array or a string of JSON is redacted as any text.
    pub fn redact_json_text<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let Some(strings) = json::strings(text) else { return self.redact(text) };
        let mut redacted = String::new();
        let mut copied = 0;
        for string in strings {
            let findings = match &string.key {
                Some(key) => self.redactor.find_of_key(key, &string.value),
                None => self.redactor.find(&string.value),
            };
            let raw = &text[string.raw.clone()];
            let replaced = self.replace(raw, &string.value, &findings, |at| string.offset(at));
            if let Cow::Owned(replaced) = replaced {
                redacted.push_str(&text[copied..string.raw.start]);
                redacted.push_str(&replaced);
                copied = string.raw.end;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        redacted.push_str(&text[copied..]);
        Cow::Owned(redacted)
    }

    /// The text with values for their placeholders: the inverse of [`redact`](Self::redact).
    #[must_use]
    pub fn restore(&self, text: &str) -> String {
        self.restored(text, Form::Text)
    }

    /// A JSON text with values for their placeholders, escaped as strings of JSON are: the inverse of
    /// [`redact_json_text`](Self::redact_json_text), up to the way in which characters of a value were escaped.
    #[must_use]
    pub fn restore_json(&self, text: &str) -> String {
        self.restored(text, Form::Json)
    }

    /// How many different values were replaced, for each kind of which there were any.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Kind, usize> {
        &self.counts
    }

    /// All placeholders that stand for something, in the order in which they were given.
    pub fn placeholders(&self) -> impl ExactSizeIterator<Item = Placeholder> {
        self.given.iter().copied()
    }

    /// Replaces what was found in `value`, the text that `raw` says; `offset` is the place in `raw` of one in `value`.
    fn replace<'t>(
        &mut self,
        raw: &'t str,
        value: &str,
        findings: &[Finding],
        offset: impl Fn(usize) -> usize,
    ) -> Cow<'t, str> {
        let mut places: Vec<_> = Vec::with_capacity(findings.len());
        let mut inside = findings.iter().peekable();
        // What a found value contains is a part of that value.
        let mut own = Placeholder::all(value).filter(|(_, own)| {
            while inside.next_if(|finding| finding.range.end <= own.start).is_some() {}
            inside.peek().is_none_or(|finding| own.end <= finding.range.start)
        });
        let mut next_own = own.next();
        for finding in findings {
            while let Some((placeholder, range)) = next_own.take_if(|(_, range)| range.start < finding.range.start) {
                places.extend(self.escape(placeholder).map(|escaped| (range, escaped)));
                next_own = own.next();
            }
            places.push((finding.range.clone(), self.placeholder(finding.kind, &value[finding.range.clone()])));
        }
        while let Some((placeholder, range)) = next_own {
            places.extend(self.escape(placeholder).map(|escaped| (range, escaped)));
            next_own = own.next();
        }
        if places.is_empty() {
            return Cow::Borrowed(raw);
        }
        let mut replaced = String::with_capacity(raw.len());
        let mut copied = 0;
        for (range, placeholder) in places {
            replaced.push_str(&raw[copied..offset(range.start)]);
            replaced.push_str(&placeholder.to_string());
            copied = offset(range.end);
        }
        replaced.push_str(&raw[copied..]);
        Cow::Owned(replaced)
    }

    /// The placeholder of a value.
    fn placeholder(&mut self, kind: Kind, value: &str) -> Placeholder {
        if let Some(known) = self.placeholders.get(value) {
            return *known;
        }
        *self.counts.entry(kind).or_default() += 1;
        self.give(kind, value)
    }

    /// What stands for a placeholder of the caller's own; `None` if it stands for itself.
    fn escape(&mut self, own: Placeholder) -> Option<Placeholder> {
        if !self.values.contains_key(&own) {
            self.reserved.insert(own);
            return None;
        }
        let text = own.to_string();
        let known = self.placeholders.get(text.as_str()).copied();
        Some(known.unwrap_or_else(|| self.give(own.kind(), &text)))
    }

    fn give(&mut self, kind: Kind, value: &str) -> Placeholder {
        let number = self.numbers.entry(kind).or_default();
        let placeholder = loop {
            *number += 1;
            let placeholder = Placeholder::new(kind, *number);
            if !self.reserved.contains(&placeholder) {
                break placeholder;
            }
        };
        let value: Arc<str> = value.into();
        self.values.insert(placeholder, Arc::clone(&value));
        self.placeholders.insert(value, placeholder);
        self.given.push(placeholder);
        placeholder
    }

    fn restored(&self, text: &str, form: Form) -> String {
        let mut restored = Vec::with_capacity(text.len());
        let done = self.restore_into(text.as_bytes(), form, &mut restored);
        restored.extend_from_slice(&text.as_bytes()[done..]);
        into_text(restored)
    }

    /// Appends the restored text to `restored`, up to a suffix that could be the start of a placeholder: the place of that suffix.
    pub(crate) fn restore_into(&self, text: &[u8], form: Form, restored: &mut Vec<u8>) -> usize {
        let mut done = 0;
        while let Some(ahead) = text[done..].iter().position(|byte| *byte == b'[') {
            let start = done + ahead;
            restored.extend_from_slice(&text[done..start]);
            match Placeholder::read(&text[start..]) {
                Start::Cut => return start,
                Start::Other => {
                    restored.push(b'[');
                    done = start + 1;
                }
                Start::Whole(placeholder, length) => {
                    done = start + length;
                    match self.values.get(&placeholder) {
                        Some(value) if form == Form::Json => {
                            restored.extend_from_slice(json::escaped(value).as_bytes())
                        }
                        Some(value) => restored.extend_from_slice(value.as_bytes()),
                        None => restored.extend_from_slice(&text[start..done]),
                    }
                }
            }
        }
        restored.extend_from_slice(&text[done..]);
        text.len()
    }
}

/// Bytes as text. They are UTF-8 where the pieces were that they were made of.
pub(crate) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
