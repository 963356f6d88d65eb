//! Tokens to text, as they come: whole characters only, and never a part of a stop string.

use std::sync::Arc;

use super::TokenBytes;

/// The text of one answer.
#[derive(Debug)]
pub struct TextStream {
    tokens: Arc<TokenBytes>,
    stop: Vec<String>,
    /// Bytes of a character that is not complete.
    partial: Vec<u8>,
    /// Text that could be the beginning of a stop string.
    held: String,
    started: bool,
}

/// What a token adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text to give out, maybe empty.
    Text(String),
    /// The last text; a stop string followed it.
    Stopped(String),
}

impl TextStream {
    /// A text that ends before the first of `stop` (none of them empty).
    pub fn new(tokens: Arc<TokenBytes>, stop: Vec<String>) -> Self {
        Self { tokens, stop, partial: Vec::new(), held: String::new(), started: false }
    }

    /// The text that is complete with token `id`.
    pub fn push(&mut self, id: u32) -> Piece {
        let bytes = if self.started { self.tokens.get(id) } else { self.tokens.first(id) };
        self.started = true;
        self.partial.extend_from_slice(bytes);
        take_characters(&mut self.partial, &mut self.held, false);
        self.release()
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> Piece {
        take_characters(&mut self.partial, &mut self.held, true);
        match self.release() {
            Piece::Text(mut text) => {
                text.push_str(&std::mem::take(&mut self.held));
                Piece::Text(text)
            }
            stopped @ Piece::Stopped(_) => stopped,
        }
    }

    /// The part of `held` that no stop string can begin in.
    fn release(&mut self) -> Piece {
        if self.stop.is_empty() {
            return Piece::Text(std::mem::take(&mut self.held));
        }
        if let Some(at) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Piece::Stopped(std::mem::take(&mut self.held));
        }
        let kept = self.stop.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        Piece::Text(std::mem::replace(&mut self.held, rest))
    }
}

/// Bytes at the end of `text` that are the beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
        .unwrap_or(0)
}

/// Moves whole characters from `bytes` to `text`; bytes that cannot become one turn into U+FFFD, as do those that are
/// left `at_end`.
fn take_characters(bytes: &mut Vec<u8>, text: &mut String, at_end: bool) {
    let mut taken = 0;
    while taken < bytes.len() {
        match std::str::from_utf8(&bytes[taken..]) {
            Ok(whole) => {
                text.push_str(whole);
                taken = bytes.len();
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[taken..taken + valid]));
                taken += valid;
                match error.error_len() {
                    Some(bad) => taken += bad,
                    None if at_end => taken = bytes.len(),
                    None => break,
                }
                text.push('\u{fffd}');
            }
        }
    }
    bytes.drain(..taken);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(tokens: &[&[u8]], stop: &[&str]) -> TextStream {
        let bytes = TokenBytes::of(tokens);
        TextStream::new(Arc::new(bytes), stop.iter().map(|&s| s.into()).collect())
    }

    fn text(tokens: &[&[u8]], stop: &[&str]) -> (Vec<String>, bool) {
        let mut stream = stream(tokens, stop);
        let mut out = Vec::new();
        for id in 0..tokens.len() as u32 {
            match stream.push(id) {
                Piece::Text(text) => out.push(text),
                Piece::Stopped(text) => {
                    out.push(text);
                    return (out, true);
                }
            }
        }
        let (Piece::Text(last) | Piece::Stopped(last)) = stream.finish();
        out.push(last);
        (out, false)
    }

    #[test]
    fn characters_wait_for_their_last_byte() {
        let euro = "€".as_bytes();
        assert_eq!(text(&[b"a", &euro[..1], &euro[1..], b"b"], &[]).0, ["a", "", "€", "b", ""]);
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_and_lose_nothing_else() {
        assert_eq!(text(&[b"a\xffb", &"€".as_bytes()[..2]], &[]).0.concat(), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_never_shown() {
        let (parts, stopped) = text(&[b"one ", b"E", b"N", b"D", b" two"], &["END"]);
        assert_eq!((parts.concat().as_str(), stopped), ("one ", true));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_given_back() {
        let (parts, stopped) = text(&[b"one EN", b"Dless", b" EN"], &["END.", "stop"]);
        assert_eq!((parts.concat().as_str(), stopped), ("one ENDless EN", false));
    }

    #[test]
    fn the_first_of_several_stop_strings_wins() {
        assert_eq!(text(&[b"a b c d"], &["c", "b"]).0.concat(), "a ");
    }
}
