//! The tools of a request, checked.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use slm_convert::chat::ChatTool;
use slm_proto::v1::{self, ToolChoiceMode};

use super::ToolsError;

/// Also OpenAI's bound.
const TOOLS_MAX: usize = 128;
/// Characters of a tool's name; also OpenAI's.
const NAME_MAX: usize = 64;
/// Bytes of a tool's description.
const DESCRIPTION_BYTES_MAX: usize = 64 << 10;
/// Bytes of the parameters of all tools.
const PARAMETERS_BYTES_MAX: usize = 512 << 10;
/// Bytes and number of the variables for a chat template.
const VARIABLES_BYTES_MAX: usize = 16 << 10;
const VARIABLES_MAX: usize = 32;
/// What every template is given.
const RESERVED: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

/// Tools that an answer may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSet {
    /// At least one.
    pub tools: Vec<Tool>,
    /// Whether it calls.
    pub choice: Choice,
    /// Whether it may call more than once.
    pub parallel: bool,
}

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// What the template shows.
    pub shown: ChatTool,
    /// Whether the arguments of its calls are guaranteed.
    pub strict: bool,
}

/// Whether an answer calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The model decides.
    Auto,
    /// At least once.
    Required,
    /// The tool of this index.
    Named(usize),
}

impl ToolSet {
    /// The tools of a request; `None` if there are none, or none may be called.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn new(
        tools: Vec<v1::Tool>,
        choice: Option<v1::ToolChoice>,
        parallel: Option<bool>,
    ) -> Result<Option<Self>, ToolsError> {
        let choice = choice.unwrap_or_default();
        let (mode, name) = (choice.mode(), choice.name);
        if tools.len() > TOOLS_MAX {
            let field = "tools".to_owned();
            return Err(ToolsError::TooMany { field, found: tools.len(), unit: "entries", most: TOOLS_MAX });
        }
        let bytes = tools.iter().map(|tool| tool.parameters.len()).sum();
        if bytes > PARAMETERS_BYTES_MAX {
            let field = "tools".to_owned();
            return Err(ToolsError::TooMany {
                field,
                found: bytes,
                unit: "bytes of parameters",
                most: PARAMETERS_BYTES_MAX,
            });
        }
        let read = |(index, tool)| Tool::new(&format!("tools[{index}]"), tool);
        let tools = tools.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        check_names(&tools)?;
        if tools.is_empty() && (mode == ToolChoiceMode::Required || !name.is_empty()) {
            return Err(ToolsError::invalid("tool_choice", "wants a call, and there are no `tools`; send some"));
        }
        if !name.is_empty() && mode != ToolChoiceMode::Required {
            return Err(ToolsError::invalid("tool_choice.name", "is only for the mode REQUIRED"));
        }
        let choice = match mode {
            ToolChoiceMode::None => return Ok(None),
            ToolChoiceMode::Auto | ToolChoiceMode::Unspecified => Choice::Auto,
            ToolChoiceMode::Required if name.is_empty() => Choice::Required,
            ToolChoiceMode::Required => Choice::Named(place(&tools, &name)?),
        };
        Ok(Some(Self { tools, choice, parallel: parallel.unwrap_or(true) }).filter(|set| !set.tools.is_empty()))
    }

    /// The tool of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.shown.name == name)
    }

    /// Whether only a grammar keeps what was asked for.
    #[must_use]
    pub fn guarantees(&self) -> bool {
        self.choice != Choice::Auto || self.tools.iter().any(|tool| tool.strict)
    }
}

impl Tool {
    fn new(path: &str, tool: v1::Tool) -> Result<Self, ToolsError> {
        let v1::Tool { name, description, parameters, strict } = tool;
        let at = |field: &str| format!("{path}.{field}");
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        if name.is_empty() {
            return Err(ToolsError::invalid(at("name"), "is missing; a tool needs a name"));
        }
        if name.len() > NAME_MAX || !name.chars().all(is_letter) {
            let shown: String = name.chars().take(80).collect();
            let why = format!("is {shown:?}; it has to be 1 to {NAME_MAX} of the characters a-z, A-Z, 0-9, _, - and .");
            return Err(ToolsError::invalid(at("name"), why));
        }
        if description.len() > DESCRIPTION_BYTES_MAX {
            let (found, most) = (description.len(), DESCRIPTION_BYTES_MAX);
            return Err(ToolsError::TooMany { field: at("description"), found, unit: "bytes", most });
        }
        let parameters = parameters_of(&at("parameters"), &parameters)?;
        Ok(Self { shown: ChatTool { name, description, parameters }, strict })
    }
}

/// The schema of an object.
fn parameters_of(path: &str, text: &str) -> Result<Value, ToolsError> {
    if text.trim().is_empty() {
        return Ok(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    }
    let schema: Value = serde_json::from_str(text)
        .map_err(|error| ToolsError::invalid(path, format!("is no JSON Schema: it is not JSON: {error}")))?;
    let Value::Object(mut keywords) = schema else {
        return Err(ToolsError::invalid(path, "is no JSON Schema of an object; send {\"type\": \"object\", …}"));
    };
    match keywords.get("type") {
        Some(kind) if kind == "object" => {}
        Some(kind) => {
            let why = format!("at /type: it has to be \"object\", not {kind}; arguments are an object");
            return Err(ToolsError::invalid(path, why));
        }
        None => drop(keywords.insert("type".to_owned(), "object".into())),
    }
    if let Some(properties) = keywords.get("properties").filter(|properties| !properties.is_object()) {
        let why = format!("at /properties: it has to be an object of schemas, not {}", kind_of(properties));
        return Err(ToolsError::invalid(path, why));
    }
    Ok(keywords.into())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn check_names(tools: &[Tool]) -> Result<(), ToolsError> {
    let mut seen = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        if !seen.insert(tool.shown.name.as_str()) {
            let why = format!("is `{}`, as that of another tool; names have to differ", tool.shown.name);
            return Err(ToolsError::invalid(format!("tools[{index}].name"), why));
        }
    }
    Ok(())
}

fn place(tools: &[Tool], name: &str) -> Result<usize, ToolsError> {
    tools.iter().position(|tool| tool.shown.name == name).ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        ToolsError::invalid("tool_choice.name", format!("is `{name}`, which is none of `tools`"))
    })
}

/// Variables for the chat template.
///
/// # Errors
/// They are no object, too many, or hide what every template is given.
pub(crate) fn variables(text: &str) -> Result<Map<String, Value>, ToolsError> {
    const FIELD: &str = "chat_template_kwargs";
    if text.is_empty() {
        return Ok(Map::new());
    }
    let too_many = |found, unit, most| ToolsError::TooMany { field: FIELD.to_owned(), found, unit, most };
    if text.len() > VARIABLES_BYTES_MAX {
        return Err(too_many(text.len(), "bytes", VARIABLES_BYTES_MAX));
    }
    let variables: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| ToolsError::invalid(FIELD, format!("is no JSON object: {error}")))?;
    if variables.len() > VARIABLES_MAX {
        return Err(too_many(variables.len(), "entries", VARIABLES_MAX));
    }
    match variables.keys().find(|name| RESERVED.contains(&name.as_str())) {
        None => Ok(variables),
        Some(name) => Err(ToolsError::invalid(FIELD, format!("has `{name}`, which the request says elsewhere"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: &str) -> v1::Tool {
        v1::Tool { name: name.to_owned(), parameters: parameters.to_owned(), ..Default::default() }
    }

    fn choice(mode: ToolChoiceMode, name: &str) -> Option<v1::ToolChoice> {
        Some(v1::ToolChoice { mode: mode.into(), name: name.to_owned() })
    }

    #[test]
    fn refusals_name_the_field() {
        use ToolChoiceMode::{Auto, Required};
        let many = |count: usize| (0..count).map(|index| tool(&format!("f{index}"), "")).collect::<Vec<_>>();
        for (tools, choice, field, words) in [
            (vec![tool("", "")], None, "tools[0].name", "is missing"),
            (vec![tool("f", ""), tool("a b", "")], None, "tools[1].name", "is \"a b\"; it has to be"),
            (vec![tool("f", ""), tool("f", "")], None, "tools[1].name", "is `f`, as that of another tool"),
            (many(129), None, "tools", "has 129 entries; at most 128"),
            (vec![tool("f", "{")], None, "tools[0].parameters", "it is not JSON"),
            (vec![tool("f", "[]")], None, "tools[0].parameters", "no JSON Schema of an object"),
            (vec![tool("f", r#"{"type": "string"}"#)], None, "tools[0].parameters", "at /type: it has to be"),
            (vec![tool("f", r#"{"properties": []}"#)], None, "tools[0].parameters", "at /properties: it has to be"),
            (vec![tool("f", &" ".repeat(600_000))], None, "tools", "has 600000 bytes of parameters"),
            (vec![], choice(Required, ""), "tool_choice", "there are no `tools`"),
            (vec![tool("f", "")], choice(Required, "g"), "tool_choice.name", "is `g`, which is none"),
            (vec![tool("f", "")], choice(Auto, "f"), "tool_choice.name", "only for the mode REQUIRED"),
        ] {
            let refused = ToolSet::new(tools, choice, None).unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
            assert!(refused.to_string().starts_with(field) && refused.to_string().contains(words), "{refused}");
        }
    }

    #[test]
    fn choices_are_read() {
        let of = |mode, name: &str| {
            ToolSet::new(vec![tool("f", ""), tool("g", "")], choice(mode, name), Some(false)).unwrap()
        };
        assert_eq!(of(ToolChoiceMode::None, ""), None);
        assert_eq!(of(ToolChoiceMode::Auto, "").unwrap().choice, Choice::Auto);
        assert_eq!(of(ToolChoiceMode::Required, "").unwrap().choice, Choice::Required);
        let named = of(ToolChoiceMode::Required, "g").unwrap();
        assert_eq!((named.choice, named.parallel), (Choice::Named(1), false));
        assert_eq!(ToolSet::new(Vec::new(), None, None), Ok(None));
    }

    #[test]
    fn variables_are_bounded() {
        assert_eq!(variables("").unwrap(), Map::new());
        assert_eq!(variables(r#"{"enable_thinking": false}"#).unwrap()["enable_thinking"], false);
        for (text, words) in [
            ("[]".to_owned(), "is no JSON object"),
            (format!("{{\"a\": \"{}\"}}", "x".repeat(17_000)), "has 17009 bytes; at most 16384"),
            (r#"{"messages": []}"#.to_owned(), "has `messages`, which the request says elsewhere"),
        ] {
            let refused = variables(&text).unwrap_err().to_string();
            assert!(refused.starts_with("chat_template_kwargs ") && refused.contains(words), "{refused}");
        }
    }
}
