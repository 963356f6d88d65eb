//! Numbers of telephones.
//!
//! A run of digits is one only with evidence: a `+` and a calling code, or a shape that numbers of a country have and other numbers
//! hardly do, or a word such as "phone" before it. `run` cuts runs into groups, `words` reads what stands before them.

mod run;
mod words;

use super::{
    Finding,
    around::{after, before, is_word},
};
use crate::{kind::Kind, pattern::PatternError};
use run::{Run, Runs};
use words::Words;

/// Digits of a number, by E.164.
const DIGITS_MAX: usize = 15;
/// Digits of a number that only a word says to be one: without an area code.
const DIGITS_MIN: usize = 7;
/// Digits of a number that its shape says to be one.
const SHAPE_DIGITS: std::ops::RangeInclusive<usize> = 9..=13;
/// Groups of a number.
const GROUPS_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Phones {
    runs: Runs,
    words: Words,
}

/// Why a run of digits is taken for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// It alone.
    Shape,
    /// It can be one, where a word says so.
    Word,
    /// None.
    Not,
}

impl Phones {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self { runs: Runs::new()?, words: Words::new()? })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        for run in self.runs.find(text) {
            for part in run.parts() {
                self.find_in(text, &part, findings);
            }
        }
    }

    /// Finds numbers in a part of a run: each ends at its end, or where a space is.
    fn find_in(&self, text: &str, run: &Run<'_>, findings: &mut Vec<Finding>) {
        let mut first = 0;
        let is_apart = begins(text, run, 0);
        let mut may_start = true;
        while first < run.groups.len() {
            let begins = (may_start || run.opens(first)) && begins(text, run, first);
            let last = if begins { self.last(text, run, first) } else { None };
            if let Some(last) = last {
                findings.push(Finding { kind: Kind::Phone, range: run.range(first, last) });
                first = last + 1;
                may_start = true;
                continue;
            }
            first += 1;
            // What may stand before a number without a word between: a count, a date.
            let is_behind = first == 1 && run.groups[0].digits.len() <= 2 || first == 3 && run.slice(0, 2).is_date();
            may_start = is_apart && is_behind;
        }
    }

    /// The last group of the longest number that starts with this one.
    fn last(&self, text: &str, run: &Run<'_>, first: usize) -> Option<usize> {
        let ahead = before(text, run.range(first, first).start, words::BYTES_MAX);
        if self.words.is_other(ahead) {
            return None;
        }
        // Asked for at most once for each start.
        let mut has_word = None;
        let groups = run.groups.len().min(first + GROUPS_MAX);
        (first..groups).rev().find(|last| {
            let is_end = *last + 1 == run.groups.len();
            let ends =
                if is_end { !run.goes_on(text) } else { run.separator(*last).starts_with([' ', '\u{a0}', '\u{202f}']) };
            if !ends {
                return false;
            }
            let number = run.slice(first, *last);
            match evidence(&number) {
                Evidence::Not => false,
                found => {
                    let behind = after(text, number.end(), words::BYTES_MAX);
                    !self.words.is_amount(behind)
                        && (found == Evidence::Shape
                            || *has_word.get_or_insert_with(|| {
                                self.words.is_phone(ahead) || self.words.is_phone_behind(behind)
                            }))
                }
            }
        })
    }
}

/// Whether a number may begin with this group.
fn begins(text: &str, run: &Run<'_>, first: usize) -> bool {
    if first > 0 {
        return run.separator(first - 1).contains([' ', '\u{a0}', '\u{202f}']);
    }
    let ahead = &text[..run.range(0, 0).start];
    let mut backwards = ahead.chars().rev();
    let (previous, earlier) = (backwards.next(), backwards.next());
    match previous {
        Some('.' | ',' | ':') => earlier.is_none_or(|earlier| !earlier.is_ascii_digit()),
        Some('-' | '/' | '\\') => {
            earlier.is_none_or(|earlier| !is_word(earlier) && !matches!(earlier, '-' | '/' | '.' | '\\'))
        }
        Some('#' | '$' | '€' | '£' | '%' | '@' | '+' | '§') => false,
        Some(previous) => !is_word(previous),
        None => true,
    }
}

/// What groups of digits say of themselves.
fn evidence(number: &Run<'_>) -> Evidence {
    let digits = number.digits();
    let length = digits.len();
    if number.has_plus {
        return if is_international(number, &digits) { Evidence::Shape } else { Evidence::Not };
    }
    if !(DIGITS_MIN..=DIGITS_MAX).contains(&length) || number.is_date() || number.is_day() {
        return Evidence::Not;
    }
    let lengths: Vec<_> = number.groups.iter().map(|group| group.digits.len()).collect();
    if is_north_american(number, &lengths, &digits) {
        return Evidence::Shape;
    }
    let first = lengths[0];
    let (last, inner) = lengths[1..].split_last().map_or((0, &[][..]), |(last, inner)| (*last, inner));
    let ends = last >= 2 || number.separator_before_last() == "-";
    let has_groups = lengths.len() >= 2 && ends && inner.iter().all(|length| *length >= 2);
    // Cards and parcels have groups of four, and so have few telephones.
    let is_even = lengths.len() >= 3 && lengths.iter().all(|length| *length == 4);
    let is_national = digits.starts_with('0')
        && (2..=6).contains(&first)
        && (!digits.starts_with("00") || has_calling_code(&digits[2..]));
    let is_area = number.opens(0) && (2..=5).contains(&first) && !number.is_year(0) && !digits.starts_with("00");
    if has_groups && !is_even && (is_national || is_area) && SHAPE_DIGITS.contains(&(length + usize::from(is_area))) {
        return Evidence::Shape;
    }
    if number.groups[0].digits.starts_with("00") && has_groups && length > 9 && has_calling_code(&digits[2..]) {
        return Evidence::Shape;
    }
    Evidence::Word
}

/// `+49 30 …`, where the area's own zero may stand in parentheses.
fn is_international(number: &Run<'_>, digits: &str) -> bool {
    let extra = usize::from(number.groups.iter().any(|group| group.digits == "0"));
    let lengths = number.groups.iter().map(|group| group.digits.len());
    // A sum with its thousands set apart: `+1.000.000`.
    let is_sum = digits.len() <= 9
        && number.groups.len() >= 2
        && lengths.clone().skip(1).all(|length| length == 3)
        && lengths.clone().take(1).all(|length| length <= 3);
    (DIGITS_MIN + 1..=DIGITS_MAX + extra).contains(&digits.len()) && !is_sum && has_calling_code(digits)
}

/// `(202) 555-0143`, `202-555-0143`, `1-202-555-0143`: the area and the exchange start with two or more.
fn is_north_american(number: &Run<'_>, lengths: &[usize], digits: &str) -> bool {
    let (area, skipped) = match lengths {
        [3, 3, 4] => (0, 0),
        [1, 3, 3, 4] if digits.starts_with('1') => (1, 1),
        _ => return false,
    };
    let digits = &digits.as_bytes()[skipped..];
    let separators: Vec<_> = (area..area + 2).map(|group| number.separator(group)).collect();
    let is_apart = number.opens(area) || matches!(separators[..], ["-", "-"] | [".", "."]);
    is_apart && digits[0] >= b'2' && digits[3] >= b'2'
}

/// Whether a number starts with a calling code: by its first two digits, which leave few out.
fn has_calling_code(digits: &str) -> bool {
    let start = digits.get(..2).unwrap_or_default();
    digits.starts_with(['1', '7']) || (!start.starts_with('0') && !matches!(start, "" | "28" | "83" | "89"))
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    #[test]
    fn international() {
        check(
            Kind::Phone,
            &[
                "Call «+49 30 23125 012» or «+4930231250», «+1 (202) 555-0143» and «+44 (0)20 7946 0018».",
                "«+33 1 99 00 12 34», «+33.1.99.00.12.34»; «+39 06 5555 0123» «(+34) 910 555 012»",
                "tel:«+351-21-555-01-23»",
                "«0049 30 23125012» «00 44 20 7946 0018»",
                "(«+49 171 3920012»)",
            ],
        );
    }

    #[test]
    fn national() {
        check(
            Kind::Phone,
            &[
                "«030 23125012»",
                "«030/23125-12», «(030) 23125012», «0171 - 3920012»",
                "«01 99 00 12 34», «06.39.98.12.34», «020 7946 0018»",
                "«202-555-0143», «(202) 555-0143», «1-800-555-0199», «202.555.0143»",
                "«(11) 95550-0123»",
                "«030 23125012» / «0171 3920012»",
                "am 12.05.2024 «030 23125012», 2 «030 23125012»",
                "(«030 23125012»)",
            ],
        );
    }

    #[test]
    fn with_a_word() {
        check(
            Kind::Phone,
            &[
                "phone: «5550143», Tel. «23125012», Telefon-Nr.: «03023125012»",
                "teléfono «910 555 012», cellulare «333 555 0123», telemóvel «912 555 012»",
                "Ruf mich unter «03023125012» an",
                "«23125012» (Handy)",
            ],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::Phone,
            &[
                "01.02.2024, 2024-01-02 03:04:05, 01/02/2024 10:30, 04 05 2024",
                "order 0123-456789, Bestellnummer: 0123 456789, commande n° 01 23 45 67 89, ISBN 0-306-40615-2",
                "Tel. am 12.05.2024, call 20240512",
                "+1.000.000 €, +12 %, +100 000, UTC+0100, C+12345678",
                "01.02.03.04, 0.0123456789, 1,030 123456",
                "DE00 3704 0044 0532 0130 00, 0123 4567 8901",
                "912 555 012, 23125012, (2019) 571 123, 978-3-16-148410-0",
                "550e8400-0123-456789, a/030-123456789, #030 1234567",
                "030 1234567 EUR",
                "Chapter 5 (2) 1234",
            ],
        );
    }
}
