//! The arguments of a call, read while they come.

/// Bound on objects and lists within one another. JSON readers have one, too.
const DEPTH_MAX: usize = 120;

/// Reads JSON letter by letter, up to the end of an object.
#[derive(Debug)]
pub(super) struct Arguments {
    /// What is open, the innermost last.
    open: Vec<Within>,
    at: At,
}

/// How far a text goes.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// Beyond it.
    More,
    /// The object ends after so many bytes.
    Whole(usize),
    /// After so many bytes comes what JSON has not there.
    Broken(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Within {
    Object,
    List,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// A value, or the end of an empty list.
    Value {
        may_end: bool,
    },
    /// A key, or the end of an empty object.
    Key {
        may_end: bool,
    },
    Colon,
    /// After a value.
    After,
    Text {
        is_key: bool,
    },
    Escape {
        is_key: bool,
    },
    /// So many hexadecimal digits are left.
    Hex {
        is_key: bool,
        left: u8,
    },
    Word(&'static str),
    Number(Digits),
}

/// Where in a number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Digits {
    Sign,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    Power,
}

impl Arguments {
    /// Before an object.
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), at: At::Value { may_end: false } }
    }

    /// After the value of a field.
    pub(super) fn after_field() -> Self {
        Self { open: vec![Within::Object], at: At::After }
    }

    /// Reads on. `kept` is given the JSON, without the white space between its parts.
    pub(super) fn push(&mut self, text: &str, kept: &mut String) -> Progress {
        for (at, letter) in text.char_indices() {
            if letter.is_ascii_whitespace() && self.is_between() {
                if let At::Number(_) = self.at {
                    self.at = At::After;
                }
                continue;
            }
            if self.step(letter).is_none() {
                return Progress::Broken(at);
            }
            kept.push(letter);
            if self.open.is_empty() {
                return Progress::Whole(at + letter.len_utf8());
            }
        }
        Progress::More
    }

    /// Whether white space may come.
    fn is_between(&self) -> bool {
        match self.at {
            At::Value { .. } | At::Key { .. } | At::Colon | At::After => true,
            At::Number(digits) => digits.may_end(),
            At::Text { .. } | At::Escape { .. } | At::Hex { .. } | At::Word(_) => false,
        }
    }

    /// Takes a letter, if it may come.
    fn step(&mut self, letter: char) -> Option<()> {
        self.at = match self.at {
            At::Text { is_key } => match letter {
                '"' if is_key => At::Colon,
                '"' => At::After,
                '\\' => At::Escape { is_key },
                '\0'..=' ' if letter != ' ' => return None,
                _ => At::Text { is_key },
            },
            At::Escape { is_key } => match letter {
                'u' => At::Hex { is_key, left: 4 },
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => At::Text { is_key },
                _ => return None,
            },
            At::Hex { is_key, left } => match (letter.is_ascii_hexdigit(), left) {
                (false, _) => return None,
                (true, 1) => At::Text { is_key },
                (true, left) => At::Hex { is_key, left: left - 1 },
            },
            At::Word(rest) => match rest.strip_prefix(letter)? {
                "" => At::After,
                rest => At::Word(rest),
            },
            At::Number(digits) => match digits.step(letter) {
                Some(digits) => At::Number(digits),
                None if digits.may_end() => self.after(letter)?,
                None => return None,
            },
            At::Value { may_end: true } if letter == ']' => self.close(Within::List)?,
            At::Value { .. } => self.value(letter)?,
            At::Key { may_end: true } if letter == '}' => self.close(Within::Object)?,
            At::Key { .. } => (letter == '"').then_some(At::Text { is_key: true })?,
            At::Colon => (letter == ':').then_some(At::Value { may_end: false })?,
            At::After => self.after(letter)?,
        };
        Some(())
    }

    fn value(&mut self, letter: char) -> Option<At> {
        let opened = match letter {
            '{' => Within::Object,
            // Arguments are an object.
            _ if self.open.is_empty() => return None,
            '[' => Within::List,
            '"' => return Some(At::Text { is_key: false }),
            't' => return Some(At::Word("rue")),
            'f' => return Some(At::Word("alse")),
            'n' => return Some(At::Word("ull")),
            _ => return Digits::first(letter).map(At::Number),
        };
        if self.open.len() >= DEPTH_MAX {
            return None;
        }
        self.open.push(opened);
        Some(match opened {
            Within::Object => At::Key { may_end: true },
            Within::List => At::Value { may_end: true },
        })
    }

    fn after(&mut self, letter: char) -> Option<At> {
        match (letter, self.open.last()?) {
            (',', Within::Object) => Some(At::Key { may_end: false }),
            (',', Within::List) => Some(At::Value { may_end: false }),
            ('}', _) => self.close(Within::Object),
            (']', _) => self.close(Within::List),
            _ => None,
        }
    }

    fn close(&mut self, what: Within) -> Option<At> {
        (self.open.pop()? == what).then_some(At::After)
    }
}

impl Digits {
    fn first(letter: char) -> Option<Self> {
        match letter {
            '-' => Some(Self::Sign),
            '0' => Some(Self::Zero),
            '1'..='9' => Some(Self::Whole),
            _ => None,
        }
    }

    fn step(self, letter: char) -> Option<Self> {
        match (self, letter) {
            (Self::Sign, letter) => Self::first(letter).filter(|digits| *digits != Self::Sign),
            (Self::Whole, '0'..='9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, '.') => Some(Self::Point),
            (Self::Point | Self::Fraction, '0'..='9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, 'e' | 'E') => Some(Self::Exponent),
            (Self::Exponent, '+' | '-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::Power, '0'..='9') => Some(Self::Power),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Power)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// How far it goes, and what is kept; the same in one piece and in letters.
    fn read(text: &str) -> (Progress, String) {
        let mut kept = String::new();
        let whole = Arguments::new().push(text, &mut kept);
        let (mut letters, mut reader, mut progress) = (String::new(), Arguments::new(), Progress::More);
        for (at, letter) in text.char_indices() {
            progress = match reader.push(letter.encode_utf8(&mut [0; 4]), &mut letters) {
                Progress::More => continue,
                Progress::Whole(bytes) => Progress::Whole(at + bytes),
                Progress::Broken(bytes) => Progress::Broken(at + bytes),
            };
            break;
        }
        assert_eq!((&whole, &kept), (&progress, &letters), "{text}");
        (whole, kept)
    }

    #[test]
    fn an_object_ends_where_json_says_so() {
        for text in [
            r#"{}"#,
            r#" { "a" : [ ] , "b":{ } } "#,
            r#"{"a": [1, -0.5, 1e3, 2E-7, 0, 10.25e+1, true, false, null, "x", {"y": [[]]}]}}"#,
            r#"{"q": "a \"b\" \\ \u00e9 \n }{ [", "ü": "日本"} {"next": 1}"#,
            r#"{"a": 1 , "b": 2.5 }]"#,
        ] {
            let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            let value = values.next().expect("a value").expect("JSON");
            let (progress, kept) = read(text);
            assert_eq!(progress, Progress::Whole(values.byte_offset()), "{text}");
            assert_eq!(serde_json::from_str::<Value>(&kept).expect("JSON"), value);
            assert!(kept.len() <= values.byte_offset() && !kept.contains(": "), "{kept}");
            // Every beginning of it may go on.
            let bytes = text.char_indices().map(|(at, _)| at).filter(|at| *at < values.byte_offset());
            bytes.for_each(|at| assert_eq!(read(&text[..at]).0, Progress::More, "{}", &text[..at]));
        }
    }

    #[test]
    fn what_is_no_json_breaks_it_where_it_stands() {
        for (text, bytes) in [
            ("[1]", 0),
            ("1", 0),
            ("\"a\"", 0),
            ("{a: 1}", 1),
            ("{\"a\" 1}", 5),
            ("{\"a\": }", 6),
            ("{\"a\": 1,}", 8),
            ("{\"a\": [1,]}", 9),
            ("{\"a\": [1}", 8),
            ("{\"a\": 01}", 7),
            ("{\"a\": 1.}", 8),
            ("{\"a\": -}", 7),
            ("{\"a\": 1e}", 8),
            ("{\"a\": 1 2}", 8),
            ("{\"a\": True}", 6),
            ("{\"a\": tru}", 9),
            ("{\"a\": \"x\ny\"}", 8),
            ("{\"a\": \"\\x\"}", 8),
            ("{\"a\": \"\\u12g4\"}", 11),
            ("{\"a\": 'x'}", 6),
            ("{\"a\": \"x\" \"y\"}", 10),
        ] {
            let (progress, kept) = read(text);
            assert_eq!(progress, Progress::Broken(bytes), "{text}");
            assert!(!kept.contains(' '), "{kept}");
        }
        let deep = "{\"a\":".repeat(500);
        assert_eq!(read(&deep).0, Progress::Broken(5 * DEPTH_MAX));
    }

    #[test]
    fn fields_after_the_arguments_end_with_their_object() {
        for (text, expected) in [
            ("}", Progress::Whole(1)),
            (" , \"id\": \"x}\"} rest", Progress::Whole(14)),
            (", ", Progress::More),
            ("\n</tool_call>", Progress::Broken(1)),
        ] {
            assert_eq!(Arguments::after_field().push(text, &mut String::new()), expected, "{text}");
        }
    }
}
