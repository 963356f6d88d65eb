//! Placeholders: `[EMAIL_1]`.
//!
//! One has no bracket inside, so no placeholder of ours can come about where a replaced value meets the text around it.

use std::fmt;

use crate::kind::Kind;

/// Digits of a number: more values than a request can hold.
const DIGITS_MAX: usize = 9;

/// What stands for a value in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placeholder {
    kind: Kind,
    number: u32,
}

/// What a text starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A placeholder of so many bytes.
    Whole(Placeholder, usize),
    /// All of the text, which is not empty, could be the start of one.
    Cut,
    /// Something else.
    Other,
}

impl Placeholder {
    /// Of a kind, the first of which has number one.
    pub(crate) const fn new(kind: Kind, number: u32) -> Self {
        Self { kind, number }
    }

    /// What the value is.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Reads the start of a text.
    pub(crate) fn read(text: &[u8]) -> Start {
        let Some(inner) = text.strip_prefix(b"[") else { return Start::Other };
        let mut cut = false;
        for kind in Kind::ALL {
            let label = kind.label().as_bytes();
            if inner.len() < label.len() {
                cut |= label.starts_with(inner);
            } else if let Some(rest) = inner.strip_prefix(label) {
                let before = text.len() - rest.len();
                return Self::read_number(kind, before, rest);
            }
        }
        if cut { Start::Cut } else { Start::Other }
    }

    fn read_number(kind: Kind, before: usize, rest: &[u8]) -> Start {
        let Some((first, rest)) = rest.split_first() else { return Start::Cut };
        if *first != b'_' {
            return Start::Other;
        }
        let mut number = 0_u32;
        for (digits, byte) in rest.iter().enumerate() {
            match byte {
                b']' if digits > 0 => return Start::Whole(Self { kind, number }, before + digits + 2),
                b'0' if digits == 0 => return Start::Other,
                b'0'..=b'9' if digits < DIGITS_MAX => number = number * 10 + u32::from(byte - b'0'),
                _ => return Start::Other,
            }
        }
        Start::Cut
    }

    /// Placeholders of a text with their places, from left to right.
    pub(crate) fn all(text: &str) -> impl Iterator<Item = (Self, std::ops::Range<usize>)> {
        text.match_indices('[').filter_map(|(at, _)| match Self::read(&text.as_bytes()[at..]) {
            Start::Whole(placeholder, length) => Some((placeholder, at..at + length)),
            Start::Cut | Start::Other => None,
        })
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}_{}]", self.kind.label(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for kind in Kind::ALL {
            for number in [1, 9, 10, 999_999_999] {
                let placeholder = Placeholder::new(kind, number);
                let text = placeholder.to_string();
                assert_eq!(Placeholder::read(text.as_bytes()), Start::Whole(placeholder, text.len()));
                for cut in 1..text.len() {
                    assert_eq!(Placeholder::read(&text.as_bytes()[..cut]), Start::Cut, "{}", &text[..cut]);
                }
            }
        }
    }

    #[test]
    fn what_only_looks_alike_is_text() {
        for text in [
            "",
            "EMAIL_1]",
            "[email_1]",
            "[EMAIL1]",
            "[EMAIL_]",
            "[EMAIL_0]",
            "[EMAIL_01]",
            "[EMAIL_1234567890",
            "[EMAIL_1 ]",
            "[MAIL_1]",
            "[IPX",
            "[[EMAIL_1]",
            "[SECRETS_1]",
            "[ü",
        ] {
            assert_eq!(Placeholder::read(text.as_bytes()), Start::Other, "{text}");
        }
        let found: Vec<_> = Placeholder::all("[[IP_2] [IP_2 [CARD_31]]").map(|(_, range)| range).collect();
        assert_eq!(found, [1..7, 14..23]);
    }
}
