//! Numbers of payment cards.

use regex::Regex;

use super::{
    Finding,
    around::{before, is_word},
};
use crate::{
    kind::Kind,
    pattern::{PatternError, compile},
};

/// Digits, set apart by single spaces or hyphens.
const DIGITS: &str = r"[0-9]+(?:[ \x{a0}-][0-9]+)*";
/// Words before a number that say it is of a card.
const WORDS: &str = concat!(
    r"(?i)card|kart[ea]|carte|tarjeta|cart[ãa]o|carta|visa|master|amex|american express|maestro|diners|discover|jcb|unionpay",
    r"|(?-u:\b)cb(?-u:\b)|(?-u:\b)pan(?-u:\b)"
);
/// Bytes in which such a word stands.
const WORDS_BYTES_MAX: usize = 48;
const LENGTHS: std::ops::RangeInclusive<usize> = 13..=19;
/// Issuers: first and last prefix, of the same length, and the shortest and the longest number.
const ISSUERS: &[(&str, &str, usize, usize)] = &[
    ("2200", "2204", 16, 19), // Mir
    ("2221", "2720", 16, 16), // Mastercard
    ("300", "305", 14, 19),   // Diners Club
    ("3095", "3095", 14, 19),
    ("34", "34", 15, 15),     // American Express
    ("3528", "3589", 16, 19), // JCB
    ("36", "36", 14, 19),
    ("37", "37", 15, 15),
    ("38", "39", 14, 19),
    ("4", "4", 13, 19),       // Visa
    ("50", "50", 13, 19),     // Maestro, Verve, RuPay, Elo, Dankort
    ("51", "55", 16, 16),     // Mastercard
    ("56", "58", 13, 19),     // Maestro
    ("60", "60", 16, 19),     // Discover, RuPay
    ("62", "62", 16, 19),     // UnionPay
    ("63", "63", 13, 19),     // Maestro
    ("64", "65", 16, 19),     // Discover
    ("67", "67", 13, 19),     // Maestro
    ("81", "82", 16, 19),     // UnionPay, RuPay
    ("9792", "9792", 16, 16), // Troy
];

#[derive(Debug)]
pub(crate) struct Cards {
    digits: Regex,
    words: Regex,
}

impl Cards {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self { digits: compile("digits of cards", DIGITS)?, words: compile("words of cards", WORDS)? })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        for found in self.digits.find_iter(text).filter(|found| found.len() >= *LENGTHS.start()) {
            self.find_in(text, found.start(), found.as_str(), findings);
        }
    }

    /// Finds cards in a run of digits: each starts and ends at a space or at an end of the run.
    fn find_in(&self, text: &str, start: usize, run: &str, findings: &mut Vec<Finding>) {
        let groups = groups(run);
        let mut first = 0;
        while first < groups.len() {
            let begins = if first == 0 {
                !text[..start].ends_with(|before: char| is_word(before) || matches!(before, '+' | '-'))
            } else {
                !run[..groups[first].0].ends_with('-')
            };
            let last = if begins { self.card(text, start, run, &groups, first) } else { None };
            if let Some(last) = last {
                findings.push(Finding { kind: Kind::Card, range: start + groups[first].0..start + groups[last].1 });
            }
            first = last.unwrap_or(first) + 1;
        }
    }

    /// The last group of the longest card that starts with this one.
    fn card(&self, text: &str, start: usize, run: &str, groups: &[(usize, usize)], first: usize) -> Option<usize> {
        let mut digits = String::with_capacity(*LENGTHS.end());
        let mut longest = None;
        for (last, (group, end)) in groups.iter().enumerate().skip(first) {
            digits.push_str(&run[*group..*end]);
            if digits.len() > *LENGTHS.end() {
                break;
            }
            let rest = &text[start + end..];
            let ends = if last + 1 == groups.len() { !goes_on(rest) } else { !rest.starts_with('-') };
            if ends && LENGTHS.contains(&digits.len()) && is_issued(&digits) && has_checksum(&digits) {
                let apart = &groups[first..=last];
                if is_printed(run, apart)
                    || is_plain(apart, digits.len())
                    || self.has_word(text, start + groups[first].0)
                {
                    longest = Some(last);
                }
            }
        }
        longest
    }

    fn has_word(&self, text: &str, at: usize) -> bool {
        self.words.is_match(before(text, at, WORDS_BYTES_MAX))
    }
}

/// Starts and ends of the groups of digits.
fn groups(run: &str) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let mut start = None;
    for (at, byte) in run.bytes().enumerate() {
        match (byte.is_ascii_digit(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                groups.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    groups.extend(start.map(|from| (from, run.len())));
    groups
}

/// Whether a number goes on after its last digit: a word, a fraction.
fn goes_on(rest: &str) -> bool {
    let mut rest = rest.chars();
    match rest.next() {
        Some('.' | ',') => rest.next().is_some_and(|next| next.is_ascii_digit()),
        Some('-') => rest.next().is_some_and(is_word),
        next => next.is_some_and(is_word),
    }
}

/// Groups as they are printed on cards, set apart by the same character.
fn is_printed(run: &str, groups: &[(usize, usize)]) -> bool {
    let lengths: Vec<_> = groups.iter().map(|(start, end)| end - start).collect();
    let is_even = match lengths.split_last() {
        Some((last, others)) => others.len() >= 3 && others.iter().all(|length| *length == 4) && *last <= 4,
        None => false,
    };
    let mut apart = groups.windows(2).map(|pair| &run[pair[0].1..pair[1].0]);
    let separator = apart.next();
    (is_even || matches!(lengths[..], [4, 6, 5 | 4])) && apart.all(|other| Some(other) == separator)
}

/// One group of the lengths that nearly all cards have: other numbers of 13 or of 17 digits and more are too many.
fn is_plain(groups: &[(usize, usize)], digits: usize) -> bool {
    groups.len() == 1 && (14..=16).contains(&digits)
}

fn is_issued(digits: &str) -> bool {
    ISSUERS.iter().any(|(first, last, shortest, longest)| {
        let prefix = &digits[..first.len()];
        *first <= prefix && prefix <= *last && (*shortest..=*longest).contains(&digits.len())
    })
}

/// Luhn's checksum.
fn has_checksum(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0');
            if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    #[test]
    fn cards() {
        check(
            Kind::Card,
            &[
                "paid with «4111 1111 1111 1111» 12/27 123",
                "«4111-1111-1111-1111», «5555555555554444».",
                "Amex «3782 822463 10005», «378282246310005», Diners «3056 930902 5904»",
                "2 «6011 0009 9013 9424»",
                "Kartennummer «4222222222222»",
                "UnionPay «6205 5000 0000 0000 004» «3530111333300000»",
                "carte n° «411111 1111111111»",
                "«2223003122003222»",
            ],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::Card,
            &[
                "4111 1111 1111 1112",
                "4222222222222",
                "X4111111111111111, 4111111111111111X, 4111111111111111.5, a-4111111111111111",
                "1111 1111 1111 1117",
                "41111111 11111111",
                "4111-1111 1111-1111",
                "item 12-4111-1111-1111-1111",
                "411111111111111111111",
            ],
        );
    }
}
