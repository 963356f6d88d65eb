//! What a short answer says, without how it is written: for votes, and for the agreement of two answers. Pure.

use icu_normalizer::ComposingNormalizerBorrowed;

/// Marks around words that say nothing. Signs that do, such as `%` and `$`, are none of them.
const MARKS: &str = ".,;:!?¿¡\"'`*_~()[]{}<>«»‹›“”„‟‘’‚…·•-–—/\\|。、，．！？：；「」『』（）【】";

/// The words of `text` in lower case, one space between them: in Unicode's compatible form (NFKC), without the marks around them.
/// Marks within words stay: `3.5` is not `35`, nor `-5` what `5` is.
pub(crate) fn normalised(text: &str) -> String {
    let composed = ComposingNormalizerBorrowed::new_nfkc();
    // Lower case may need composing again.
    let lower = composed.normalize(text).to_lowercase();
    let lower = composed.normalize(&lower);
    let mut normal = String::with_capacity(lower.len());
    for word in lower.split_whitespace().map(without_marks).filter(|word| !word.is_empty()) {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(word);
    }
    normal
}

/// Whether two answers say the same.
pub(crate) fn agree(one: &str, other: &str) -> bool {
    one == other || normalised(one) == normalised(other)
}

fn without_marks(word: &str) -> &str {
    let is_mark = |letter: char| MARKS.contains(letter);
    let ended = word.trim_end_matches(is_mark);
    let bare = ended.trim_start_matches(is_mark);
    // A sign, or a point, before a number is a part of it.
    let marks = &ended[..ended.len() - bare.len()];
    let number = |from: usize| bare.starts_with(|letter: char| letter.is_numeric()).then(|| &ended[from..]);
    match marks {
        _ if marks.ends_with("-.") => number(marks.len() - 2).unwrap_or(bare),
        _ if marks.ends_with(['-', '.']) => number(marks.len() - 1).unwrap_or(bare),
        _ => bare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_differently_says_the_same() {
        for (one, other) in [
            ("Transfer", " transfer.\n"),
            ("**Paris**", "paris!"),
            ("New   York", "“new york”"),
            ("Ｐａｒｉｓ　１２", "paris 12"),
            ("ﬁne", "Fine"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("İstanbul", "i̇stanbul"),
            ("- yes", "Yes"),
            ("(b)", "B"),
            ("...", ""),
        ] {
            assert!(agree(one, other), "{one:?} {other:?}: {:?} {:?}", normalised(one), normalised(other));
        }
    }

    #[test]
    fn what_says_something_else_does_not() {
        for (one, other) in [
            ("3.5", "35"),
            ("-5", "5"),
            ("-.5", ".5"),
            (".5", "5"),
            ("5 %", "5"),
            ("$5", "5"),
            ("new york", "newyork"),
            ("can't", "cant"),
            ("yes", "no"),
            ("1", "2"),
        ] {
            assert!(!agree(one, other), "{one:?} {other:?}");
        }
        assert_eq!(normalised("  The Answer: (-5), “of   course”. "), "the answer -5 of course");
    }
}
