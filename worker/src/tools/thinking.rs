//! What a model thinks before it answers, apart from the answer.

use super::calls::overlap;

/// The marks around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinking {
    /// Mark of its begin.
    pub open: &'static str,
    /// Mark of its end.
    pub close: &'static str,
}

const MARKS: [Thinking; 2] =
    [Thinking { open: "<think>", close: "</think>" }, Thinking { open: "[THINK]", close: "[/THINK]" }];

impl Thinking {
    /// The marks that a template of this text writes.
    #[must_use]
    pub fn of(template: &str) -> Option<Self> {
        MARKS.into_iter().find(|marks| template.contains(marks.close))
    }

    /// Whether a prompt that ends like this leaves the model in the middle of its thoughts.
    #[must_use]
    pub fn is_open_at_end(self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }
}

/// Splits an answer.
#[derive(Debug)]
pub(super) struct ThinkingReader {
    marks: Thinking,
    at: At,
    /// Whether a thought has begun.
    begun: bool,
    buffer: String,
}

#[derive(Debug, PartialEq)]
enum At {
    /// Only white space so far.
    Start,
    Thoughts,
    /// Nothing but white space after them.
    After,
    Answer,
}

impl ThinkingReader {
    pub(super) fn new(marks: Thinking, is_open: bool) -> Self {
        Self { marks, at: if is_open { At::Thoughts } else { At::Start }, begun: false, buffer: String::new() }
    }

    /// Adds text; gives thoughts and answer that are certain.
    pub(super) fn push(&mut self, text: &str, thoughts: &mut String, answer: &mut String) {
        if self.at == At::Answer {
            answer.push_str(text);
            return;
        }
        self.buffer.push_str(text);
        if self.at == At::Start {
            let begun = self.buffer.trim_start();
            if let Some(thought) = begun.strip_prefix(self.marks.open) {
                self.buffer = thought.to_owned();
                self.at = At::Thoughts;
            } else if !self.marks.open.starts_with(begun) {
                self.at = At::Answer;
            }
        }
        if self.at == At::Thoughts {
            self.think(thoughts);
        }
        if self.at == At::After {
            self.buffer = self.buffer.trim_start().to_owned();
            if !self.buffer.is_empty() {
                self.at = At::Answer;
            }
        }
        if self.at == At::Answer {
            answer.push_str(&self.buffer);
            self.buffer.clear();
        }
    }

    /// Thoughts have no white space around them.
    fn think(&mut self, thoughts: &mut String) {
        if !self.begun {
            self.buffer = self.buffer.trim_start().to_owned();
            self.begun = !self.buffer.is_empty();
        }
        let (end, ended) = match self.buffer.find(self.marks.close) {
            Some(end) => (end, true),
            None => (self.buffer.len() - overlap(&self.buffer, self.marks.close), false),
        };
        let certain = self.buffer[..end].trim_end().len();
        thoughts.push_str(&self.buffer[..certain]);
        if ended {
            self.at = At::After;
            self.buffer.drain(..end + self.marks.close.len());
        } else {
            self.buffer.drain(..certain);
        }
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self, thoughts: &mut String, answer: &mut String) {
        match self.at {
            At::Thoughts => thoughts.push_str(self.buffer.trim_end()),
            _ => answer.push_str(&self.buffer),
        }
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(is_open: bool, parts: &[&str]) -> (String, String) {
        let mut reader = ThinkingReader::new(MARKS[0], is_open);
        let (mut thoughts, mut answer) = (String::new(), String::new());
        for part in parts {
            reader.push(part, &mut thoughts, &mut answer);
        }
        reader.finish(&mut thoughts, &mut answer);
        (thoughts, answer)
    }

    #[test]
    fn thoughts_are_set_apart_wherever_the_text_is_cut() {
        for (is_open, text, thoughts, answer) in [
            (
                false,
                "<think>\nSo: a < b.\n\n</think>\n\nYes. <think> is a tag.",
                "So: a < b.",
                "Yes. <think> is a tag.",
            ),
            (false, "\n<think>a</think>b", "a", "b"),
            (true, "\nHm.\n</think>\nYes.", "Hm.", "Yes."),
            (true, "Hm, and cut </thi", "Hm, and cut </thi", ""),
            (false, "Yes. </think>", "", "Yes. </think>"),
            (false, "  <thing", "", "  <thing"),
            (false, " <th", "", " <th"),
            (false, "<think></think>ä", "", "ä"),
        ] {
            let expected = (thoughts.to_owned(), answer.to_owned());
            assert_eq!(split(is_open, &[text]), expected, "{text}");
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                assert_eq!(split(is_open, &[&text[..cut], &text[cut..]]), expected, "{text} at {cut}");
            }
            let letters: Vec<String> = text.chars().map(String::from).collect();
            assert_eq!(split(is_open, &letters.iter().map(String::as_str).collect::<Vec<_>>()), expected, "{text}");
        }
    }

    #[test]
    fn templates_say_how_they_mark_it() {
        let marks = Thinking::of("{{ '<think>' }}…{{ '</think>' }}").unwrap();
        assert!(
            marks.is_open_at_end("<|im_start|>assistant\n<think>\n")
                && !marks.is_open_at_end("<think>\n\n</think>\n\n")
        );
        assert_eq!(Thinking::of("[THINK][/THINK]"), Some(MARKS[1]));
        assert_eq!(Thinking::of("{{ messages }}"), None);
    }
}
