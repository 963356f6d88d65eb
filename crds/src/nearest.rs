//! "Did you mean": suggestions for an unknown name.

/// Bound on suggestions.
const SUGGESTIONS_MAX: usize = 3;
/// Minimum similarity (Damerau-Levenshtein, 1 is equal); below, a suggestion would only confuse.
const LIKENESS_MIN: f64 = 0.5;

/// Candidates similar to `name`, most similar first, at most three.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|candidate| (likeness(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= LIKENESS_MIN)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(SUGGESTIONS_MAX).map(|(_, candidate)| candidate).collect()
}

/// Edit distance, or containment: `travel` is near `travel-expert`.
fn likeness(a: &str, b: &str) -> f64 {
    let spelling = strsim::normalized_damerau_levenshtein(a, b);
    let shorter = a.len().min(b.len());
    if shorter >= 3 && (a.contains(b) || b.contains(a)) { spelling.max(0.6) } else { spelling }
}

/// End of an error message: ``; did you mean `a` or `b`?``, or nothing.
#[must_use]
pub fn did_you_mean(nearest: &[&str]) -> String {
    let quoted: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => format!("; did you mean {only}?"),
        Some((last, rest)) => format!("; did you mean {} or {last}?", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_looks_alike() {
        let names = ["smol", "banking", "travel-expert", "assistant"];
        let cases: [(&str, &[&str]); 5] = [
            ("bankin", &["banking"]),
            ("Smol", &["smol"]),
            ("travel", &["travel-expert"]),
            ("asistant", &["assistant"]),
            ("zzz", &[]),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(did_you_mean(&[]), "");
        assert_eq!(did_you_mean(&["a"]), "; did you mean `a`?");
        assert_eq!(did_you_mean(&["a", "b", "c"]), "; did you mean `a`, `b` or `c`?");
    }
}
