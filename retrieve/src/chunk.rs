//! A text in pieces that an encoder reads whole. Pure.
//!
//! A piece ends where a paragraph does, and none reaches over a heading. A paragraph that is too long is cut between words, and what
//! follows begins with the last words of what was before, so that no sentence is only in halves.

/// Sizes of pieces, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of a piece at most.
    pub most: usize,
    /// Of what a piece repeats of the one before, at most, where a paragraph was cut.
    pub overlap: usize,
}

/// The least size of a piece.
pub const SIZE_MIN: usize = 64;

/// The pieces of a text. Each begins with the heading that it stands under.
#[must_use]
pub fn chunks(text: &str, sizes: Sizes) -> Vec<String> {
    let mut chunks = Vec::new();
    for (heading, paragraphs) in sections(text) {
        // A heading takes a quarter of a piece at most.
        let heading: String = heading.chars().take(sizes.most / 4).collect();
        let room = sizes.most - count(&heading) - 1;
        let mut piece = String::new();
        for part in paragraphs.iter().flat_map(|paragraph| parts(paragraph, room, sizes.overlap.min(room / 2))) {
            if !piece.is_empty() && count(&piece) + 2 + count(&part) > room {
                chunks.push(under(&heading, &piece));
                piece.clear();
            }
            if !piece.is_empty() {
                piece.push_str("\n\n");
            }
            piece.push_str(&part);
        }
        if !piece.is_empty() {
            chunks.push(under(&heading, &piece));
        }
    }
    chunks
}

/// Headings with the paragraphs under them.
fn sections(text: &str) -> Vec<(String, Vec<String>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    let mut paragraph: Vec<&str> = Vec::new();
    let mut fenced = false;
    for line in text.lines().map(str::trim_end).chain([""]) {
        fenced ^= line.starts_with("```");
        let is_heading = !fenced && line.starts_with('#') && line.trim_start_matches('#').starts_with(' ');
        if !is_heading && !line.is_empty() {
            paragraph.push(line);
            continue;
        }
        if let Some((_, paragraphs)) = sections.last_mut().filter(|_| !paragraph.is_empty()) {
            paragraphs.push(paragraph.join("\n"));
        }
        paragraph.clear();
        if is_heading {
            sections.push((line.trim_start_matches('#').trim().to_owned(), Vec::new()));
        }
    }
    sections
}

/// A paragraph in parts of at most `most` characters, cut between words where there are some.
fn parts(paragraph: &str, most: usize, overlap: usize) -> Vec<String> {
    let letters: Vec<char> = paragraph.chars().collect();
    let (mut parts, mut begin) = (Vec::new(), 0);
    while letters.len() - begin > most {
        let window = &letters[begin..begin + most];
        // In the second half: what is cut must become shorter.
        let space = window.iter().rposition(|letter| letter.is_whitespace()).filter(|at| *at > most / 2);
        let end = begin + space.unwrap_or(most);
        parts.push(letters[begin..end].iter().collect::<String>().trim().to_owned());
        let from = end - overlap.min((end - begin) / 2);
        let word = letters[from..end].iter().position(|letter| letter.is_whitespace()).map_or(end, |at| from + at + 1);
        begin = word;
    }
    parts.push(letters[begin..].iter().collect::<String>().trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

fn under(heading: &str, piece: &str) -> String {
    if heading.is_empty() { piece.to_owned() } else { format!("{heading}\n{piece}") }
}

fn count(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { most: 64, overlap: 16 };

    #[test]
    fn pieces_end_with_paragraphs_and_keep_to_their_heading() {
        let text = "before\n\n# One\n\nfirst\nline\n\nsecond\n## Two\n```\n# no heading\n```\nthird\n";
        assert_eq!(chunks(text, SIZES), ["before", "One\nfirst\nline\n\nsecond", "Two\n```\n# no heading\n```\nthird"]);
        assert!(chunks(" \n\n# only\n", SIZES).is_empty());
    }

    #[test]
    fn long_paragraphs_are_cut_between_words_and_overlap() {
        let words: Vec<String> = (0..60).map(|word| format!("wörd{word}")).collect();
        let pieces = chunks(&format!("# Heading\n{}", words.join(" ")), SIZES);
        assert!(pieces.iter().all(|piece| count(piece) <= SIZES.most && piece.starts_with("Heading\n")), "{pieces:?}");
        for word in &words {
            assert!(pieces.iter().any(|piece| piece.split_whitespace().any(|found| found == word)), "{word}");
        }
        let tail = pieces[0].split_whitespace().next_back().expect("a word");
        assert!(pieces[1].contains(tail), "{pieces:?}");
        let solid = chunks(&"x".repeat(1000), SIZES);
        assert!(solid.iter().all(|piece| count(piece) <= SIZES.most));
        assert_eq!(solid.concat().len(), 1000);
    }
}
