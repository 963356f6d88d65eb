//! The grammar of an answer whose calls are guaranteed, in llguidance's variant of Lark.

use serde_json::{Value, json};

use super::{Choice, Form, Thinking, ToolSet};
use crate::constrain::{ConstraintError, Rule, ToolsRule, checked_schema, with_bounded_space};

/// Bound on the calls of one answer: a small model would go on for ever.
const CALLS_MAX: usize = 16;
/// Any text.
const TEXT: &str = "(?s:.*)";

/// The rule of an answer: of one that has to call, calls alone; else text with calls that are valid. `is_open` if the prompt leaves the
/// model in the middle of its thoughts. `control` finds control tokens by their text.
///
/// # Errors
/// The parameters of a tool cannot be guaranteed.
pub(crate) fn rule(
    tools: &ToolSet,
    form: Form,
    thinking: Option<(Thinking, bool)>,
    control: impl Fn(&str) -> Option<u32>,
) -> Result<Rule, ConstraintError> {
    let mut grammar = Grammar { tools, form, control: &control, rules: Vec::new() };
    let mut schemas = Vec::new();
    for (index, tool) in tools.tools.iter().enumerate() {
        if matches!(tools.choice, Choice::Named(named) if named != index) {
            continue;
        }
        // Others may have any arguments where only strict ones are guaranteed.
        let schema = if tools.choice != Choice::Auto || tool.strict {
            checked_schema(&tool.shown.parameters).map_err(|error| error.of_tool(index))?
        } else {
            json!({"type": "object"})
        };
        schemas.push((index, schema));
    }
    grammar.calls(&schemas);
    let body = if tools.choice == Choice::Auto { grammar.free() } else { "calls".to_owned() };
    let start = grammar.thoughts(thinking);
    grammar.rules.insert(0, format!("start: {start}{body}"));
    let schemas = schemas.into_iter().map(|(index, schema)| (index, schema.to_string())).collect();
    Ok(Rule::Tools(ToolsRule { grammar: grammar.rules.join("\n"), schemas }))
}

struct Grammar<'g> {
    tools: &'g ToolSet,
    form: Form,
    control: &'g dyn Fn(&str) -> Option<u32>,
    rules: Vec<String>,
}

impl Grammar<'_> {
    /// Rules `calls`, `more` (the same without the first mark) and those that they need.
    fn calls(&mut self, schemas: &[(usize, Value)]) {
        let wire = self.form.wire();
        let names: Vec<String> = schemas.iter().map(|(index, _)| format!("call_{index}")).collect();
        self.rules.push(format!("call: {}", names.join(" | ")));
        for (index, schema) in schemas {
            let [mark, text, separator, more, end, close] = wire.item;
            let name = &self.tools.tools[*index].shown.name;
            let arguments = format!("arguments_{index}");
            let rest = [
                self.piece(&format!("{text}{name}")),
                self.piece(separator),
                self.piece(more),
                arguments.clone(),
                self.piece(end),
                self.piece(close),
            ];
            self.rules.push(format!("call_{index}: {} body_{index}", self.piece(mark)));
            self.rules.push(format!("body_{index}: {}", rest.join(" ")));
            self.rules.push(format!("{arguments}: %json {}", with_bounded_space(schema)));
        }
        let bodies: Vec<String> = schemas.iter().map(|(index, _)| format!("body_{index}")).collect();
        self.rules.push(format!("body: {}", bodies.join(" | ")));
        let most = if self.tools.parallel && !matches!(self.tools.choice, Choice::Named(_)) { CALLS_MAX } else { 1 };
        let others = match most {
            1 => String::new(),
            most => format!("({} call){{0,{}}}", self.piece(wire.between), most - 1),
        };
        let [mark, text] = wire.before;
        let [end, close] = wire.after;
        let after = format!("{} {}", self.piece(end), self.piece(close));
        self.rules.push(format!("calls: {} {} call {others} {after}", self.piece(mark), self.piece(text)));
        // In a list only the list has a mark.
        let first = if mark.is_empty() { "body".to_owned() } else { format!("{} call", self.piece(text)) };
        let others = if mark.is_empty() { String::new() } else { others };
        self.rules.push(format!("more: {first} {others} {after}"));
    }

    /// Text with calls in it; or one of the two, where nothing marks calls.
    fn free(&mut self) -> String {
        let Some(mark) = self.form.marks().first() else {
            self.rules.push(r"OTHER: /(?s:[ \t\r\n]*[^ \t\r\n{\[].*)/".to_owned());
            return "(calls | OTHER)?".to_owned();
        };
        self.rules.push(format!("REST: /{TEXT}/"));
        let before = match (self.control)(mark) {
            Some(id) => {
                self.rules.push(format!("before: REST <[{id}]>"));
                "before"
            }
            None => {
                self.rules.push(format!("before[lazy]: /{TEXT}{}/", escaped(mark)));
                "before"
            }
        };
        let most = if self.tools.parallel { CALLS_MAX } else { 1 };
        format!("({before} more){{0,{most}}} REST")
    }

    /// What comes before the answer.
    fn thoughts(&mut self, thinking: Option<(Thinking, bool)>) -> String {
        let Some((marks, is_open)) = thinking else { return String::new() };
        match (self.control)(marks.close) {
            Some(id) => {
                self.rules.push(format!("THOUGHT: /{TEXT}/"));
                self.rules.push(format!("thought: THOUGHT <[{id}]> GAP"));
            }
            None => {
                self.rules.push(format!("ended[lazy]: /{TEXT}{}/", escaped(marks.close)));
                self.rules.push("thought: ended GAP".to_owned());
            }
        }
        self.rules.push(r"GAP: /[\n]{0,2}/".to_owned());
        if is_open { "thought ".to_owned() } else { format!("({} thought)? ", self.piece(marks.open)) }
    }

    /// A text, or the control token that it is.
    fn piece(&self, text: &str) -> String {
        match (self.control)(text) {
            _ if text.is_empty() => String::new(),
            Some(id) => format!("<[{id}]>"),
            None => Value::from(text).to_string(),
        }
    }
}

/// A text in a regular expression between slashes.
fn escaped(text: &str) -> String {
    let letter = |letter: char| {
        if letter.is_alphanumeric() || matches!(letter, '<' | '>' | '_' | ' ') {
            letter.to_string()
        } else {
            format!("\\{letter}")
        }
    };
    text.chars().map(letter).collect()
}
