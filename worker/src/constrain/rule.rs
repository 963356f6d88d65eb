//! The rule of a request, within its bounds.

use slm_proto::v1::sampling::Constraint;

use super::ConstraintError;

/// Bytes of a JSON Schema.
const SCHEMA_BYTES_MAX: usize = 512 << 10;
/// Bytes of a regular expression.
const REGEX_BYTES_MAX: usize = 16 << 10;
/// Bytes of a grammar.
const GRAMMAR_BYTES_MAX: usize = 64 << 10;
/// Strings of a choice, and their bytes together.
const CHOICES_MAX: usize = 1000;
const CHOICE_BYTES_MAX: usize = 64 << 10;

/// What an answer has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A JSON document of this schema.
    Schema(String),
    /// Any JSON object.
    Object,
    /// A text that this regular expression describes as a whole.
    Regex(String),
    /// A text of this grammar, in llguidance's variant of Lark.
    Grammar(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// Calls of tools.
    Tools(ToolsRule),
}

/// Calls whose arguments are guaranteed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ToolsRule {
    /// The grammar of the answer.
    pub grammar: String,
    /// The schemas in it, each with the index of its tool.
    pub schemas: Vec<(usize, String)>,
}

impl Rule {
    /// The rule of a request.
    ///
    /// # Errors
    /// It is empty or too large.
    pub fn new(constraint: Constraint) -> Result<Self, ConstraintError> {
        let rule = match constraint {
            Constraint::JsonSchema(text) => Self::Schema(bounded("json_schema", text, SCHEMA_BYTES_MAX)?),
            Constraint::JsonObject(_) => Self::Object,
            Constraint::Regex(text) => Self::Regex(bounded("regex", text, REGEX_BYTES_MAX)?),
            Constraint::Grammar(text) => Self::Grammar(bounded("grammar", text, GRAMMAR_BYTES_MAX)?),
            Constraint::Choice(choice) => Self::Choice(choices(choice.strings)?),
        };
        Ok(rule)
    }

    /// Name of the request's field.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Schema(_) => "json_schema",
            Self::Object => "json_object",
            Self::Regex(_) => "regex",
            Self::Grammar(_) => "grammar",
            Self::Choice(_) => "choice",
            Self::Tools(_) => "tools",
        }
    }

    /// Bytes of its text.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Schema(text) | Self::Regex(text) | Self::Grammar(text) => text.len(),
            Self::Tools(rule) => rule.grammar.len(),
            Self::Object => 0,
            Self::Choice(strings) => strings.iter().map(String::len).sum(),
        }
    }
}

fn bounded(field: &'static str, text: String, most: usize) -> Result<String, ConstraintError> {
    if text.trim().is_empty() {
        return Err(ConstraintError::Empty { field, expected: "leave it out for an answer without a constraint" });
    }
    if text.len() > most {
        return Err(ConstraintError::Bytes { field, found: text.len(), most });
    }
    Ok(text)
}

fn choices(strings: Vec<String>) -> Result<Vec<String>, ConstraintError> {
    if strings.is_empty() {
        return Err(ConstraintError::Empty { field: "choice", expected: "send strings of at least one character" });
    }
    if let Some(index) = strings.iter().position(String::is_empty) {
        return Err(ConstraintError::EmptyChoice { index });
    }
    if strings.len() > CHOICES_MAX {
        return Err(ConstraintError::Choices { found: strings.len(), most: CHOICES_MAX });
    }
    let found = strings.iter().map(String::len).sum();
    if found > CHOICE_BYTES_MAX {
        return Err(ConstraintError::Bytes { field: "choice", found, most: CHOICE_BYTES_MAX });
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{Choice, JsonObject};

    use super::*;

    #[test]
    fn every_bound_names_its_field() {
        let choice = |strings: Vec<String>| Constraint::Choice(Choice { strings });
        for (constraint, message) in [
            (Constraint::JsonSchema(" ".into()), "json_schema is empty; leave it out"),
            (
                Constraint::JsonSchema(" ".repeat(9) + &"x".repeat(1 << 20)),
                "json_schema has 1048585 bytes; at most 524288",
            ),
            (Constraint::Regex(String::new()), "regex is empty"),
            (Constraint::Regex("x".repeat(20_000)), "regex has 20000 bytes; at most 16384 are accepted"),
            (Constraint::Grammar("x".repeat(70_000)), "grammar has 70000 bytes; at most 65536 are accepted"),
            (choice(Vec::new()), "choice is empty; send strings of at least one character"),
            (
                choice(vec!["a".into(), String::new()]),
                "choice has an empty string at index 1; send strings of at least one character",
            ),
            (choice(vec!["a".into(); 1001]), "choice has 1001 entries; at most 1000 are accepted"),
            (choice(vec!["x".repeat(70_000)]), "choice has 70000 bytes; at most 65536 are accepted"),
        ] {
            let refused = Rule::new(constraint).unwrap_err().to_string();
            assert!(refused.starts_with(message), "{refused}");
        }
        assert_eq!(Rule::new(Constraint::JsonObject(JsonObject {})), Ok(Rule::Object));
    }
}
