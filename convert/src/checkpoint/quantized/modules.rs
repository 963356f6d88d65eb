//! Lists of modules, by name, by regular expression or by class.

use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::pattern::{Budget, Pattern, PatternError};

/// More than one entry for each module of the deepest model.
const ENTRIES_MAX: usize = 8192;
/// Prefix of regular expressions.
const EXPRESSION: &str = "re:";

/// A list of modules in a configuration.
#[derive(Debug)]
pub(super) struct Modules {
    file: String,
    field: String,
    entries: Vec<Entry>,
    budget: Budget,
}

#[derive(Debug)]
enum Entry {
    /// Name of a module or class.
    Name(String),
    /// Matched from the beginning of a module's name, as by Python's `re.match`.
    Expression(Pattern),
}

/// How an entry speaks of a module: the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    Name,
    Expression,
    Class,
}

impl Modules {
    /// The list `key`; an absent one is empty.
    pub(super) fn read(fields: &Fields<'_>, key: &str) -> Result<Self, ConfigError> {
        let texts = fields.opt_texts(key)?.unwrap_or_default();
        if texts.len() > ENTRIES_MAX {
            return Err(fields.wrong(key, &format!("at most {ENTRIES_MAX} modules")));
        }
        let budget = Budget::new();
        let mut modules = Self { file: fields.file().to_owned(), field: fields.path(key), entries: Vec::new(), budget };
        for text in texts {
            let entry = match text.strip_prefix(EXPRESSION) {
                Some(expression) => Pattern::new(&format!(r"\A(?:{expression})"), budget)
                    .map(Entry::Expression)
                    .map_err(|error| modules.failed(text, &error))?,
                None => Entry::Name(text.to_owned()),
            };
            modules.entries.push(entry);
        }
        Ok(modules)
    }

    /// Path of the list in its file.
    pub(super) fn field(&self) -> &str {
        &self.field
    }

    /// Whether a module is listed by its whole name, the last parts of it, or an expression.
    pub(super) fn include(&self, module: &str) -> Result<bool, ConfigError> {
        let ends = |name: &str| module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        let ends = self.entries.iter().any(|entry| matches!(entry, Entry::Name(name) if ends(name)));
        Ok(ends || self.best(module, "")?.is_some())
    }

    /// The most specific entry for a module of a class.
    pub(super) fn best(&self, module: &str, class: &str) -> Result<Option<Match>, ConfigError> {
        let mut best = None;
        for entry in &self.entries {
            let found = match entry {
                Entry::Name(name) if name == module => Some(Match::Name),
                Entry::Name(name) if name == class => Some(Match::Class),
                Entry::Name(_) => None,
                Entry::Expression(pattern) => {
                    let matches = pattern.is_match(module, self.budget);
                    matches.map_err(|error| self.failed(pattern.as_str(), &error))?.then_some(Match::Expression)
                }
            };
            best = [best, found].into_iter().flatten().min();
        }
        Ok(best)
    }

    fn failed(&self, expression: &str, error: &PatternError) -> ConfigError {
        ConfigError::Wrong {
            file: self.file.clone(),
            field: self.field.clone(),
            found: expression.to_owned(),
            expected: format!("a regular expression that can be used ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(list: &serde_json::Value) -> Result<Modules, String> {
        let map = serde_json::json!({ "ignore": list });
        Modules::read(&Fields::new("c", map.as_object().unwrap()), "ignore").map_err(|error| error.to_string())
    }

    #[test]
    fn names_come_before_expressions_and_these_before_classes() {
        let list = modules(&serde_json::json!(["Linear", "re:.*q_proj", "a.k_proj"])).unwrap();
        let best = |module: &str| list.best(module, "Linear").unwrap();
        assert_eq!(best("a.k_proj"), Some(Match::Name));
        assert_eq!(best("b.q_proj.x"), Some(Match::Expression), "from the beginning, not to the end");
        assert_eq!((best("b.v_proj"), list.best("b", "Embedding").unwrap()), (Some(Match::Class), None));
        let ends = |module: &str| modules(&serde_json::json!(["k_proj", "re:lm"])).unwrap().include(module).unwrap();
        assert!(ends("a.k_proj") && ends("lm_head") && !ends("ak_proj") && !ends("a.lm_head"));
    }

    #[test]
    fn an_expression_that_cannot_be_used_is_named() {
        assert!(modules(&serde_json::json!(["re:("])).unwrap_err().contains("`ignore` is re:("));
        assert!(modules(&serde_json::json!(vec!["a"; 9000])).unwrap_err().contains("at most 8192"));
        let slow = modules(&serde_json::json!([r"re:(?=m)([a-z_.0-9]+)+!"])).unwrap();
        assert!(slow.include("model.layers.0.self_attn.q_proj").unwrap_err().to_string().contains("10000 steps"));
    }
}
