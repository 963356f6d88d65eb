//! References within a document.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{ConstraintError, VALUES_MAX, children, escaped, refused};

/// The definitions that a document's references lead to.
pub(super) struct Definitions<'s> {
    root: &'s Value,
    /// Names of definitions by the JSON pointer of the target.
    names: HashMap<String, String>,
    pointers: HashMap<String, String>,
    /// Not taken yet.
    new: Vec<(String, String)>,
    /// JSON pointers of anchors.
    anchors: HashMap<&'s str, String>,
    /// Values that were copied.
    values: usize,
}

impl<'s> Definitions<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        let mut anchors = HashMap::new();
        find_anchors(root, "", &mut anchors);
        Self { root, names: HashMap::new(), pointers: HashMap::new(), new: Vec::new(), anchors, values: 0 }
    }

    /// Counts values against the bound.
    pub(super) fn count(&mut self, values: usize, at: &str) -> Result<(), ConstraintError> {
        self.values += values;
        if self.values > VALUES_MAX {
            return Err(refused(
                at,
                format!("the schema has more than {VALUES_MAX} values up to here; make it smaller"),
            ));
        }
        Ok(())
    }

    /// A reference at `at`, to a definition of the root.
    pub(super) fn reference(&mut self, value: &Value, at: &str) -> Result<Value, ConstraintError> {
        let Some(reference) = value.as_str() else {
            return Err(refused(at, "a reference has to be a string".to_owned()));
        };
        let shown: String = reference.chars().take(80).collect();
        let Some(fragment) = reference.strip_prefix('#') else {
            let why = format!("`{shown}` is outside of this document and is not fetched; put it into `$defs`");
            return Err(refused(at, why));
        };
        let pointer = match fragment {
            "" => return Ok(json!("#")),
            pointer if pointer.starts_with('/') => decoded(pointer),
            anchor => self.anchors.get(anchor).cloned(),
        };
        let found = pointer.filter(|pointer| self.root.pointer(pointer).is_some());
        let Some(pointer) = found else {
            return Err(refused(at, format!("`{shown}` leads nowhere; define it in `$defs`")));
        };
        if pointer.is_empty() {
            return Ok(json!("#"));
        }
        Ok(json!(format!("#/$defs/{}", self.name(pointer))))
    }

    /// Names and pointers of definitions that were referred to since.
    pub(super) fn take_new(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.new)
    }

    /// What is at a pointer.
    pub(super) fn target(&self, pointer: &str) -> Result<&'s Value, ConstraintError> {
        self.root.pointer(pointer).ok_or_else(|| refused(pointer, "nothing is there".to_owned()))
    }

    /// JSON pointer of the definition `name`.
    pub(super) fn pointer(&self, name: &str) -> &str {
        self.pointers.get(name).map_or("", String::as_str)
    }

    /// The last part of the pointer, where it is plain and free.
    fn name(&mut self, pointer: String) -> String {
        if let Some(name) = self.names.get(&pointer) {
            return name.clone();
        }
        let last = pointer.rsplit('/').next().unwrap_or_default();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        let is_plain = !last.is_empty() && last.chars().all(plain) && !self.pointers.contains_key(last);
        let mut name = if is_plain { last.to_owned() } else { format!("definition-{}", self.names.len()) };
        while self.pointers.contains_key(&name) {
            name.push('-');
        }
        self.names.insert(pointer.clone(), name.clone());
        self.pointers.insert(name.clone(), pointer.clone());
        self.new.push((name.clone(), pointer));
        name
    }
}

/// The definition that a cleaned schema refers to; `None` for the root.
pub(super) fn referred(schema: &Value) -> Option<Option<&str>> {
    let reference = schema.get("$ref")?.as_str()?;
    Some(reference.strip_prefix("#/$defs/"))
}

/// Checks the depth to which a reader comes that follows each reference when it first sees it.
pub(super) fn check_depth(root: &Value, definitions: &Map<String, Value>, most: usize) -> Result<(), ConstraintError> {
    fn go<'s>(schema: &'s Value, known: &'s Map<String, Value>, seen: &mut HashSet<&'s str>, left: usize) -> bool {
        let Some(left) = left.checked_sub(1) else { return false };
        if let Some(name) = referred(schema).flatten()
            && seen.insert(name)
            && !known.get(name).is_none_or(|target| go(target, known, seen, left))
        {
            return false;
        }
        children(schema).into_iter().all(|(_, child)| go(child, known, seen, left))
    }
    if go(root, definitions, &mut HashSet::new(), most) {
        return Ok(());
    }
    Err(refused("", format!("schemas lie in each other more than {most} levels deep, references included; flatten it")))
}

/// A JSON pointer of a URI.
fn decoded(pointer: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn find_anchors<'s>(value: &'s Value, pointer: &str, anchors: &mut HashMap<&'s str, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(anchor) = fields.get("$anchor").and_then(Value::as_str) {
                anchors.insert(anchor, pointer.to_owned());
            }
            fields.iter().for_each(|(key, value)| find_anchors(value, &format!("{pointer}/{}", escaped(key)), anchors));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| find_anchors(item, &format!("{pointer}/{index}"), anchors));
        }
        _ => {}
    }
}
