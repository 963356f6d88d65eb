//! Forms of calls, a file each: how a call is read.

pub(super) mod code;
pub(super) mod gemma;
pub(super) mod json;
pub(super) mod mistral;
pub(super) mod xml;

use super::calls::Call;

/// What stands at the beginning of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Read {
    /// These calls, in so many bytes.
    Calls(Vec<Call>, usize),
    /// Perhaps calls, when more has come.
    More,
    /// None.
    No,
}

/// The parts of calls with arguments in JSON. Parts that may be control tokens stand alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    /// Before all calls: a mark, and text.
    pub(super) before: [&'static str; 2],
    /// A call: a mark, text, the name, a mark or text, the arguments, text, a mark. The name comes after the second, the arguments
    /// after the fourth.
    pub(super) item: [&'static str; 6],
    pub(super) between: &'static str,
    /// After all calls: text, and a mark.
    pub(super) after: [&'static str; 2],
}

impl Wire {
    /// Nothing but objects, a line each.
    pub(super) const BARE: Self = Self {
        before: ["", ""],
        item: ["", "{\"name\": \"", "", "\", \"arguments\": ", "}", ""],
        between: "\n",
        after: ["", ""],
    };

    /// One call.
    pub(super) fn call(&self, name: &str, arguments: &str) -> String {
        let [mark, text, separator, more, end, close] = self.item;
        [mark, text, name, separator, more, arguments, end, close].concat()
    }
}

/// What a value's beginning may turn out to be.
pub(super) enum Begun<T> {
    /// The value, and its bytes.
    Whole(T, usize),
    /// It goes on.
    More,
    /// Something else.
    No,
}

/// Whether `text` begins with `word`, apart from white space; with the bytes up to its end.
pub(super) fn begins(text: &str, word: &str) -> Begun<()> {
    let rest = text.trim_start();
    if rest.starts_with(word) {
        Begun::Whole((), text.len() - rest.len() + word.len())
    } else if word.starts_with(rest) {
        Begun::More
    } else {
        Begun::No
    }
}
