//! Answers that arrive in pieces.

use std::{mem, sync::Arc};

use crate::vault::{Form, Vault, into_text};

/// Puts values back into one stream of text, which may be cut anywhere.
///
/// # Guarantees
/// All that it gives out, one after the other, is what [`Vault::restore`] or [`Vault::restore_json`] makes of the whole text. It
/// holds back no more than a suffix that could be the start of a placeholder, which is less than twenty bytes.
///
/// # Assumptions
/// One stream is pushed either as strings or as bytes. Each text of an answer (its content, its reasoning, the arguments of each
/// call) is a stream of its own; all of them share the vault.
#[derive(Debug)]
pub struct Restorer {
    vault: Arc<Vault>,
    form: Form,
    /// ASCII, since placeholders are.
    held: Vec<u8>,
}

impl Restorer {
    /// Of a text.
    #[must_use]
    pub fn text(vault: Arc<Vault>) -> Self {
        Self { vault, form: Form::Text, held: Vec::new() }
    }

    /// Of a JSON text, such as a call's arguments: values are escaped as its strings are.
    #[must_use]
    pub fn json(vault: Arc<Vault>) -> Self {
        Self { vault, form: Form::Json, held: Vec::new() }
    }

    /// The next piece, and what can be given out now.
    #[must_use]
    pub fn push(&mut self, piece: &str) -> String {
        into_text(self.push_bytes(piece.as_bytes()))
    }

    /// As [`push`](Self::push), of pieces that may end within a character; so may what is given out.
    #[must_use]
    pub fn push_bytes(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = mem::take(&mut self.held);
        text.extend_from_slice(piece);
        let mut restored = Vec::with_capacity(text.len());
        let done = self.vault.restore_into(&text, self.form, &mut restored);
        text.drain(..done);
        self.held = text;
        restored
    }

    /// What was held back, at the end of the stream.
    #[must_use]
    pub fn finish(self) -> String {
        into_text(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::Redactor;

    fn vault() -> Arc<Vault> {
        let text = "password: \"a\\\"b\" for ada@example.com";
        let mut vault = Redactor::new().expect("patterns").vault([text]);
        assert_eq!(vault.redact(text), "password: \"[SECRET_1]\" for [EMAIL_1]");
        Arc::new(vault)
    }

    #[test]
    fn a_suffix_is_held_only_as_long_as_it_may_be_a_placeholder() {
        let mut restorer = Restorer::text(vault());
        for (piece, given) in [
            ("see [", "see "),
            ("E", ""),
            ("MAIL", ""),
            ("_", ""),
            ("1", ""),
            ("]", "ada@example.com"),
            (" [EMAIL", " "),
            ("S]", "[EMAILS]"),
            ("[[IP_1] [EMAIL_2]", "[[IP_1] [EMAIL_2]"),
            (" a[0", " a[0"),
            ("[", ""),
            ("[EMAIL_1", "["),
        ] {
            assert_eq!(restorer.push(piece), given, "{piece}");
        }
        assert_eq!(restorer.finish(), "[EMAIL_1");
    }

    #[test]
    fn values_in_json_are_escaped() {
        let vault = vault();
        let arguments = r#"{"p": "[SECRET_1]", "to": "[EMAIL_1]"}"#;
        let mut restorer = Restorer::json(Arc::clone(&vault));
        let restored: String = arguments.chars().map(|piece| restorer.push(&piece.to_string())).collect();
        assert_eq!(restored + &restorer.finish(), r#"{"p": "a\\\"b", "to": "ada@example.com"}"#);
        assert_eq!(vault.restore("[SECRET_1]"), "a\\\"b");
    }

    #[test]
    fn bytes_may_be_cut_within_characters() {
        let vault = vault();
        let answer = "für [EMAIL_1] — [EMAIL_";
        for cut in 0..=answer.len() {
            let mut restorer = Restorer::text(Arc::clone(&vault));
            let mut bytes = restorer.push_bytes(&answer.as_bytes()[..cut]);
            bytes.extend(restorer.push_bytes(&answer.as_bytes()[cut..]));
            bytes.extend(restorer.finish().bytes());
            assert_eq!(String::from_utf8(bytes).expect("text"), vault.restore(answer));
        }
    }
}
