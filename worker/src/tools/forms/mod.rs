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
