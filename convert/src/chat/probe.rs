//! What a template does, found out by rendering sample conversations.

use super::{ChatError, ChatMessage, ChatTemplate, percent};

/// Content of the sample messages: text that no template contains.
const SAID: &str = "qzvxkj";
/// Roles of the sample conversations. Templates refuse some of them.
const CONVERSATIONS: [&[&str]; 6] = [
    &["user"],
    &["system", "user"],
    &["user", "assistant", "user"],
    &["system", "user", "assistant", "user"],
    &["user", "assistant", "tool", "assistant", "user"],
    &["user", "assistant"],
];

impl ChatTemplate {
    /// What the template writes around the messages of sample conversations. Rendered once.
    #[must_use]
    pub fn written(&self) -> &str {
        self.written.get_or_init(|| {
            let rendered = CONVERSATIONS.iter().filter_map(|roles| self.sample(roles).ok());
            rendered.collect::<Vec<_>>().join("\n")
        })
    }

    /// Strings that stand in the template's expressions, which may compare, split or replace parts of a message, and
    /// the texts of its special tokens.
    #[must_use]
    pub fn literals(&self) -> &[String] {
        self.literals.get_or_init(|| {
            let tokens = [&self.bos_token, &self.eos_token].into_iter().flatten().cloned();
            let others = self.special_tokens.values().filter_map(|value| value.as_str().map(str::to_owned));
            let mut literals: Vec<String> =
                percent::literals(&self.template).into_iter().chain(tokens).chain(others).collect();
            literals.retain(|literal| !literal.trim().is_empty());
            literals.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            literals.dedup();
            literals
        })
    }

    /// Why the template renders no conversation at all, such as a filter that does not exist. A template that refuses
    /// the sample conversations by itself has no problem.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let mut problem = None;
        for roles in CONVERSATIONS {
            match self.sample(roles) {
                Ok(_) | Err(ChatError::Refused { .. }) => return None,
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map(|error| format!("{error}; requests with messages will be refused: repair the template"))
    }

    fn sample(&self, roles: &[&str]) -> Result<String, ChatError> {
        let messages: Vec<ChatMessage> = roles.iter().map(|role| ChatMessage::new(role, SAID)).collect();
        self.render(&messages, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new("t", source.to_owned(), None, Some("</s>".into())).unwrap()
    }

    #[test]
    fn what_a_template_writes_and_compares_is_found() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</th\\'ink>')[-1] }}{% endfor %}'text'";
        let template = template(source);
        assert!(template.written().contains("<system>") && template.written().contains("<tool>"));
        assert_eq!(template.literals(), ["</th'ink>", "</s>"]);
    }

    #[test]
    fn only_a_template_that_renders_nothing_has_a_problem() {
        for good in
            ["", "{{ messages[0].content }}", "{{ raise_exception('no') }}", "{{ messages[1].content.strip() }}"]
        {
            assert_eq!(template(good).problem(), None, "{good}");
        }
        for (bad, word) in [("{{ messages[0].content | nosuch }}", "nosuch"), ("{{ a.b.c }}", "undefined")] {
            let problem = template(bad).problem().unwrap();
            assert!(problem.contains(word), "{problem}");
        }
    }
}
