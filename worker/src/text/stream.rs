//! Streaming detokeniser: emits whole characters only, and no part of a stop string.
//!
//! Control tokens are not part of the text, but a stop string may contain them. So they are kept beside the text for as
//! long as such a stop string could match.

use std::{ops::Range, sync::Arc};

use super::TokenBytes;

/// Text stream of one answer.
#[derive(Debug)]
pub struct TextStream {
    tokens: Arc<TokenBytes>,
    /// Control tokens that are a part of the text nevertheless.
    shown: Vec<u32>,
    /// Stop strings without control tokens, matched against the visible text.
    plain: Vec<String>,
    /// Stop strings with a control token, matched against the text with its control tokens.
    special: Vec<String>,
    /// Bytes of an incomplete character.
    partial: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    /// Ranges of control tokens in `held`. Kept only if a stop string contains one.
    hidden: Vec<Range<usize>>,
    /// The stop string that was matched.
    matched: Option<String>,
}

/// Result of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text to emit, possibly empty.
    Text(String),
    /// The final text, before a stop string.
    Stopped(String),
}

impl TextStream {
    /// A stream that ends before the first match of `stop`, none of which is empty.
    pub fn new(tokens: Arc<TokenBytes>, stop: Vec<String>) -> Self {
        let (special, plain) = stop.into_iter().partition(|stop| tokens.specials().occur_in(stop));
        let shown = Vec::new();
        Self {
            tokens,
            shown,
            plain,
            special,
            partial: Vec::new(),
            held: String::new(),
            hidden: Vec::new(),
            matched: None,
        }
    }

    /// The same stream, in whose text these control tokens are shown.
    #[must_use]
    pub fn showing(self, shown: Vec<u32>) -> Self {
        Self { shown, ..self }
    }

    /// The stop string that ended the text.
    pub fn matched(&self) -> Option<&str> {
        self.matched.as_deref()
    }

    /// Adds token `id` and gives the text that is complete.
    pub fn push(&mut self, id: u32) -> Piece {
        let bytes = self.tokens.get(id);
        if !self.tokens.is_special(id) || self.shown.contains(&id) {
            self.partial.extend_from_slice(bytes);
            take_characters(&mut self.partial, &mut self.held, false);
        } else if !self.special.is_empty() {
            let from = self.held.len();
            self.held.push_str(&String::from_utf8_lossy(bytes));
            self.hidden.push(from..self.held.len());
        }
        self.release()
    }

    /// The remaining text at the end.
    pub fn finish(&mut self) -> Piece {
        take_characters(&mut self.partial, &mut self.held, true);
        match self.release() {
            Piece::Text(mut text) => {
                text.push_str(&self.take(self.held.len()));
                Piece::Text(text)
            }
            stopped @ Piece::Stopped(_) => stopped,
        }
    }

    /// Releases the part of `held` in which no stop string can begin.
    fn release(&mut self) -> Piece {
        if self.plain.is_empty() && self.special.is_empty() {
            return Piece::Text(std::mem::take(&mut self.held));
        }
        let visible = self.visible(self.held.len());
        let plain = self.plain.iter().filter_map(|stop| Some((self.place(visible.find(stop.as_str())?), stop)));
        let special = self.special.iter().filter_map(|stop| Some((self.find(stop)?, stop)));
        let first = plain.chain(special).min_by_key(|(at, _)| *at).map(|(at, stop)| (at, stop.clone()));
        if let Some((at, stop)) = first {
            let text = self.take(at);
            self.matched = Some(stop);
            (self.held, self.hidden) = (String::new(), Vec::new());
            return Piece::Stopped(text);
        }
        let kept = self.plain.iter().map(|stop| overlap(&visible, stop)).max().unwrap_or(0);
        let plain = if kept == 0 { self.held.len() } else { self.place(visible.len() - kept) };
        let kept = self.special.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        Piece::Text(self.take(plain.min(self.held.len() - kept)))
    }

    /// Position of a stop string with control tokens. A match covers a control token wholly or not at all, since its
    /// text is not searchable text.
    fn find(&self, stop: &str) -> Option<usize> {
        let whole = |from: usize, to: usize| {
            let meets = |hidden: &&Range<usize>| hidden.start < to && from < hidden.end;
            self.hidden.iter().filter(meets).all(|hidden| from <= hidden.start && hidden.end <= to)
        };
        self.held.match_indices(stop).map(|(at, _)| at).find(|&at| whole(at, at + stop.len()))
    }

    /// Text before `end` without its control tokens.
    fn visible(&self, end: usize) -> String {
        let mut text = String::with_capacity(end);
        let mut from = 0;
        for hidden in self.hidden.iter().filter(|hidden| hidden.start < end) {
            text.push_str(&self.held[from..hidden.start]);
            from = hidden.end.min(end);
        }
        text.push_str(&self.held[from..end]);
        text
    }

    /// Position in `held` of a position in the visible text.
    fn place(&self, visible: usize) -> usize {
        let mut place = visible;
        for hidden in &self.hidden {
            if hidden.start <= place {
                place += hidden.len();
            }
        }
        place
    }

    /// Removes and returns the text before `end`.
    fn take(&mut self, end: usize) -> String {
        let text = self.visible(end);
        self.held.drain(..end);
        self.hidden.retain(|hidden| hidden.end > end);
        for hidden in &mut self.hidden {
            *hidden = hidden.start.saturating_sub(end)..hidden.end - end;
        }
        text
    }
}

/// Length of the longest suffix of `text` that is a prefix of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
        .unwrap_or(0)
}

/// Moves whole characters from `bytes` to `text`. Invalid bytes become U+FFFD, as do incomplete ones `at_end`.
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

    /// The tokens `<end>` and `<x>` are control tokens.
    fn stream(tokens: &[&[u8]], stop: &[&str]) -> TextStream {
        let bytes = TokenBytes::of(tokens, &["<end>", "<x>"]);
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
        match stream.finish() {
            Piece::Text(last) => {
                out.push(last);
                (out, false)
            }
            Piece::Stopped(last) => {
                out.push(last);
                (out, true)
            }
        }
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
    fn the_stop_string_that_was_matched_is_told() {
        for (token, matched) in [(&b"one END two. END"[..], Some("END")), (b"one. END", Some(". ")), (b"one", None)] {
            let mut stream = stream(&[token], &["END", ". "]);
            stream.push(0);
            assert_eq!(stream.matched(), matched);
        }
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

    #[test]
    #[allow(clippy::type_complexity)] // A table.
    fn control_tokens_are_found_and_never_shown() {
        let cases: [(&[&[u8]], &[&str], &str, bool); 10] = [
            (&[b"a", b"<end>", b"b"], &[], "ab", false),
            (&[b"a", b"<end>", b"b"], &["<end>"], "a", true),
            (&[b"a", b"<end>", b"b"], &["a<end>b"], "", true),
            (&[b"a", b"<end>", b"b", b"c"], &["<end>bx"], "abc", false),
            (&[b"a", b"<x>", b"<end>", b"b"], &["<end>"], "a", true),
            // The text of a control token does not match.
            (&[b"a", b"<end>", b"b"], &["end"], "ab", false),
            (&[b"a", b"<end>", b"b"], &["d>b<x>"], "ab", false),
            // A stop string matches the visible text.
            (&[b"a", b"<end>", b"b"], &["ab"], "", true),
            (&[b"1", b"<end>", b"a", b"<x>", b"b"], &["ab", "<x>c"], "1", true),
            (&[b"a", b"<e", b"nd>", b"b"], &["<end>"], "a", true),
        ];
        for (tokens, stop, expected, stops) in cases {
            let (parts, stopped) = text(tokens, stop);
            assert_eq!((parts.concat().as_str(), stopped), (expected, stops), "{tokens:?} {stop:?}");
        }
    }

    #[test]
    fn a_control_token_that_is_asked_for_is_text() {
        let mut stream = stream(&[b"a", b"<x>", b"b", b"<end>"], &["x>b"]).showing(vec![1]);
        let pieces: Vec<Piece> = (0..3).map(|id| stream.push(id)).collect();
        assert_eq!(pieces[0], Piece::Text("a".to_owned()));
        assert_eq!(
            pieces[1..],
            [Piece::Text("<".to_owned()), Piece::Stopped(String::new())],
            "stop strings see what the caller sees"
        );
    }

    #[test]
    fn a_control_token_within_a_character_does_not_break_it() {
        let euro = "€".as_bytes();
        assert_eq!(text(&[&euro[..1], b"<x>", &euro[1..]], &["<end>"]).0.concat(), "€");
    }
}
