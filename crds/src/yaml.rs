//! YAML to a tree with line numbers.
//!
//! serde's YAML support loses the lines of fields and stops at the first error, so this reads parser events. YAML 1.2
//! core schema as far as JSON can represent it; no merge keys.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// Bound on the nodes of a file with aliases expanded, against "billion laughs".
const NODES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 64;

/// A value and its location.
#[derive(Clone, Debug)]
pub struct Node {
    /// First line, from 1.
    pub line: u32,
    /// The value.
    pub tree: Tree,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Tree {
    /// A string, number, boolean or null.
    Scalar(Value),
    /// Items, in their order.
    List(Vec<Node>),
    /// Fields, in their order; no two have the same key.
    Map(Vec<Entry>),
}

/// One field of a map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name of the field.
    pub key: String,
    /// Line of the name.
    pub line: u32,
    /// Value of the field.
    pub value: Node,
}

/// Reason why a text is not a valid tree.
#[derive(Debug)]
pub struct YamlError {
    /// Line from 1.
    pub line: u32,
    /// Description of the problem.
    pub what: String,
}

/// The non-empty documents of a text.
///
/// # Errors
/// Invalid YAML, duplicate fields, too many nodes, or too deep nesting.
pub fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| YamlError {
            line: line(error.marker().line()),
            what: format!("not YAML: {}", error.info()),
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.documents)
}

impl Node {
    /// The field of this name, if the value is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.tree {
            Tree::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The value without lines.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => items.iter().map(Self::json).collect(),
            Tree::Map(entries) => {
                let fields: Map<String, Value> =
                    entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect();
                Value::Object(fields)
            }
        }
    }

    /// Adds the line of every nested field to `lines`, by path.
    pub(crate) fn lines(&self, path: &str, lines: &mut HashMap<String, u32>) {
        match &self.tree {
            Tree::Scalar(_) => {}
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    lines.insert(path.clone(), item.line);
                    item.lines(&path, lines);
                }
            }
            Tree::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    lines.insert(path.clone(), entry.line);
                    entry.value.lines(&path, lines);
                }
            }
        }
    }
}

/// Joins `a` and `b` to `a.b`.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

struct Open {
    node: Node,
    anchor: usize,
    /// A key without its value.
    key: Option<(String, u32)>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = line(span.start.line());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let plain = style == ScalarStyle::Plain && !tagged_text;
                // A key is always a string, even `on` or `1`.
                let is_key = self.open.last().is_some_and(Open::awaits_key);
                let value = if plain && !is_key { scalar(&text) } else { Value::String(text.into_owned()) };
                self.close(Node { line, tree: Tree::Scalar(value) }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Tree::List(Vec::new()), line, anchor),
            Event::MappingStart(anchor, _) => self.open(Tree::Map(Vec::new()), line, anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    self.nodes += size(&node);
                    self.close(node, 0)
                }
                None => Err(YamlError { line, what: "an alias refers to itself or to nothing".to_owned() }),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn open(&mut self, tree: Tree, line: u32, anchor: usize) -> Result<(), YamlError> {
        if self.open.last().is_some_and(Open::awaits_key) {
            return Err(YamlError { line, what: "a field's name has to be text".to_owned() });
        }
        if self.open.len() == DEPTH_MAX {
            return Err(YamlError { line, what: format!("nested deeper than {DEPTH_MAX} levels") });
        }
        self.open.push(Open { node: Node { line, tree }, anchor, key: None });
        Ok(())
    }

    /// Completes a node as a key, a value, an item or a document.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(YamlError { line: node.line, what: format!("more than {NODES_MAX} values in one file") });
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            if !matches!(node.tree, Tree::Scalar(Value::Null)) {
                self.documents.push(node);
            }
            return Ok(());
        };
        match (&mut parent.node.tree, parent.key.take()) {
            (Tree::List(items), _) => items.push(node),
            (Tree::Map(entries), Some((key, line))) => entries.push(Entry { key, line, value: node }),
            (Tree::Map(entries), None) => {
                let Some(key) = node.text() else {
                    return Err(YamlError { line: node.line, what: "a field's name has to be text".to_owned() });
                };
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    let what = format!("the field `{key}` is given twice, first on line {}", first.line);
                    return Err(YamlError { line: node.line, what });
                }
                parent.key = Some((key.to_owned(), node.line));
            }
            (Tree::Scalar(_), _) => {}
        }
        Ok(())
    }
}

impl Open {
    fn awaits_key(&self) -> bool {
        matches!(self.node.tree, Tree::Map(_)) && self.key.is_none()
    }
}

fn size(node: &Node) -> usize {
    match &node.tree {
        Tree::Scalar(_) => 1,
        Tree::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Tree::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

/// A plain scalar by the YAML 1.2 core schema. Numbers that JSON lacks (.nan, .inf) stay strings, and are refused where
/// a number is expected.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::String(text.to_owned());
    }
    if let Some(hex) = text.strip_prefix("0x")
        && let Ok(value) = i64::from_str_radix(hex, 16)
    {
        return value.into();
    }
    if let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn line(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values() {
        let text = "a: 1\nb: 1.5\nc: '1'\nd: yes\ne: true\nf:\ng: [x, -2]\nh: &h {i: .nan}\nj: *h\nk: |\n  two\n  lines\n1: one\n";
        let documents = documents(text).expect("YAML");
        let expected = json!({"a": 1, "b": 1.5, "c": "1", "d": "yes", "e": true, "f": null, "g": ["x", -2],
            "h": {"i": ".nan"}, "j": {"i": ".nan"}, "k": "two\nlines\n", "1": "one"});
        assert_eq!(documents[0].json(), expected);
    }

    #[test]
    fn lines_count_from_one_over_documents() {
        let documents = documents("# nothing\n---\na: 1\n---\n\nb:\n  - x\n  - y: 2\n").expect("YAML");
        let lines: Vec<u32> = documents.iter().map(|document| document.line).collect();
        assert_eq!(lines, [3, 6]);
        let mut paths = HashMap::new();
        documents[1].lines("", &mut paths);
        assert_eq!((paths["b"], paths["b[0]"], paths["b[1]"], paths["b[1].y"]), (6, 7, 8, 8));
    }

    #[test]
    fn refusals_name_their_line() {
        let deep = format!("a: {}", "[".repeat(100));
        let laughs: String = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
            let alias = format!("*a{}", n - 1);
            format!("{text}a{n}: &a{n} [{}]\n", vec![alias; 10].join(","))
        });
        let cases = [
            ("a: 1\na: 2\n", 2, "the field `a` is given twice, first on line 1"),
            ("a: 1\nb: [1\n", 0, "not YAML"),
            ("a:\n  ? [x]\n  : y\n", 2, "name has to be text"),
            (deep.as_str(), 1, "nested deeper"),
            (laughs.as_str(), 0, "more than 100000 values"),
        ];
        for (text, line, what) in cases {
            let error = documents(text).expect_err(what);
            assert!(error.what.contains(what), "{what}: {}", error.what);
            assert!(line == 0 || error.line == line, "{what}: line {}", error.line);
        }
    }
}
