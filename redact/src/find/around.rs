//! What stands around a value.

/// The text before a place on its line, at most so many bytes of it.
pub(crate) fn before(text: &str, at: usize, bytes_max: usize) -> &str {
    let mut start = at.saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let window = &text[start..at];
    window.rsplit('\n').next().unwrap_or(window)
}

/// The text after a place on its line, at most so many bytes of it.
pub(crate) fn after(text: &str, at: usize, bytes_max: usize) -> &str {
    let mut end = text.len().min(at + bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let window = &text[at..end];
    window.split('\n').next().unwrap_or(window)
}

/// Whether a character belongs to a word or a number.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// A key as words: `homePhone` and `home_phone` as `home Phone`, `home phone`.
pub(crate) fn words_of_key(key: &str) -> String {
    let mut words = String::with_capacity(key.len() + 4);
    let mut previous = ' ';
    for character in key.chars() {
        match character {
            '_' | '-' | '.' | '\n' => words.push(' '),
            _ => {
                if character.is_uppercase() && previous.is_lowercase() {
                    words.push(' ');
                }
                words.push(character);
            }
        }
        previous = character;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_at_lines_and_characters() {
        assert_eq!(before("eins\nzwei drei", 9, 100), "zwei");
        assert_eq!(before("für dich", 5, 3), "r ");
        assert_eq!(after("für dich\nund", 5, 100), "dich");
        assert_eq!(after("für", 0, 2), "f");
        assert_eq!(words_of_key("homePhone_2"), "home Phone 2");
    }
}
