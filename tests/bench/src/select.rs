//! Which rows are measured.

/// Patterns of row names, in which `*` stands for anything; none selects every row.
#[derive(Debug, Default)]
pub(crate) struct Selection(pub(crate) Vec<String>);

impl Selection {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, name))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name
            .strip_prefix(start)
            .is_some_and(|name| name.char_indices().any(|(at, _)| matches(rest, &name[at..])) || matches(rest, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let cases = [
            ("llama/*", "llama/base-8", true),
            ("*-8", "llama/base-8", true),
            ("*/base-*", "step/base-1", true),
            ("llama/base", "llama/base-8", false),
            ("step/*", "llama/base-8", false),
            ("*", "adapter", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Selection(vec![pattern.into()]).has(name), expected, "{pattern} {name}");
        }
        assert!(Selection::default().has("adapter"));
    }
}
