//! Runs of digits that a separator or two keep apart.

use std::ops::Range;

use regex::Regex;

use crate::{
    find::around::is_word,
    pattern::{PatternError, compile},
};

/// Groups of digits, at most three characters apart.
const RUN: &str = r"\+?\(?[0-9]+(?:[ \x{a0}\x{202f}\x{2011}\x{2013}./()-]{1,3}[0-9]+)*";
const SPACES: [char; 3] = [' ', '\u{a0}', '\u{202f}'];
/// Digits of an area code; what has more is a number of its own.
const AREA_DIGITS_MAX: usize = 5;

#[derive(Debug)]
pub(crate) struct Runs {
    pattern: Regex,
}

/// Groups of digits in a text.
#[derive(Clone, Debug)]
pub(crate) struct Run<'t> {
    text: &'t str,
    pub(crate) groups: &'t [Group<'t>],
    /// Whether a `+` stands before the first group.
    pub(crate) has_plus: bool,
}

/// Digits, and where they stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'t> {
    pub(crate) digits: &'t str,
    start: usize,
}

/// A run with its groups.
pub(crate) struct Found<'t> {
    text: &'t str,
    groups: Vec<Group<'t>>,
    has_plus: bool,
}

impl Runs {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self { pattern: compile("runs of digits", RUN)? })
    }

    /// Runs of a text, from left to right. Too short ones are left out.
    pub(crate) fn find<'t>(&self, text: &'t str) -> impl Iterator<Item = Found<'t>> {
        self.pattern.find_iter(text).filter(|found| found.len() >= super::DIGITS_MIN).map(move |found| {
            let mut groups: Vec<Group<'t>> = Vec::new();
            let mut from = None;
            let bytes = found.as_str().bytes().chain([b' ']);
            for (at, byte) in (found.start()..).zip(bytes) {
                match (byte.is_ascii_digit(), from) {
                    (true, None) => from = Some(at),
                    (false, Some(start)) => {
                        groups.push(Group { digits: &text[start..at], start });
                        from = None;
                    }
                    _ => {}
                }
            }
            Found { text, groups, has_plus: found.as_str().starts_with('+') }
        })
    }
}

impl Found<'_> {
    /// Its parts, where a dash or a slash between spaces sets numbers apart: `030 1234567 / 0171 1234567`, but not `030 / 1234567`.
    pub(crate) fn parts(&self) -> Vec<Run<'_>> {
        let mut parts = Vec::new();
        let mut first = 0;
        for last in 0..self.groups.len() {
            let part =
                Run { text: self.text, groups: &self.groups[first..=last], has_plus: self.has_plus && first == 0 };
            let next = self.groups.get(last + 1);
            let is_apart = next.is_some_and(|next| {
                let separator = &self.text[self.groups[last].end()..next.start];
                separator.starts_with(SPACES)
                    && separator.contains(['-', '/', '–'])
                    && part.digits_exceed(AREA_DIGITS_MAX)
            });
            if is_apart || next.is_none() {
                parts.push(part);
                first = last + 1;
            }
        }
        parts
    }
}

impl Group<'_> {
    fn end(&self) -> usize {
        self.start + self.digits.len()
    }

    fn is_in(&self, values: Range<u32>) -> bool {
        self.digits.parse().is_ok_and(|value| values.contains(&value))
    }
}

impl<'t> Run<'t> {
    /// The groups from one to another.
    pub(crate) fn slice(&self, first: usize, last: usize) -> Self {
        let last = last.min(self.groups.len() - 1);
        Self { text: self.text, groups: &self.groups[first..=last], has_plus: self.has_plus && first == 0 }
    }

    /// All digits.
    pub(crate) fn digits(&self) -> String {
        self.groups.iter().map(|group| group.digits).collect()
    }

    fn digits_exceed(&self, bound: usize) -> bool {
        self.groups.iter().take(bound + 1).map(|group| group.digits.len()).sum::<usize>() > bound
    }

    /// What stands between a group and the next one.
    pub(crate) fn separator(&self, group: usize) -> &'t str {
        &self.text[self.groups[group].end()..self.groups[group + 1].start]
    }

    /// What stands before the last group; nothing if there is one alone.
    pub(crate) fn separator_before_last(&self) -> &'t str {
        self.groups.len().checked_sub(2).map_or("", |group| self.separator(group))
    }

    /// Whether the group is in parentheses.
    pub(crate) fn opens(&self, group: usize) -> bool {
        let Group { start, .. } = self.groups[group];
        self.text[..start].ends_with('(') && self.text[self.groups[group].end()..].starts_with(')')
    }

    /// The end of its last group.
    pub(crate) fn end(&self) -> usize {
        self.groups.last().map_or(0, Group::end)
    }

    /// The bytes of a number from one group to another: with its plus, and with the parenthesis that closes inside of it.
    pub(crate) fn range(&self, first: usize, last: usize) -> Range<usize> {
        let mut start = self.groups[first].start;
        if self.opens(first) && last > first {
            start -= 1;
        }
        if self.has_plus && first == 0 {
            start = self.text[..start].rfind('+').unwrap_or(start);
            let closes = last > 0 && self.separator(0).starts_with(')');
            start -= usize::from(closes && self.text[..start].ends_with('('));
        }
        start..self.groups[last].end()
    }

    /// Whether the number goes on after its last group, as part of a word, a fraction or a time.
    pub(crate) fn goes_on(&self, text: &str) -> bool {
        let mut rest = text[self.end()..].chars();
        match (rest.next(), rest.next()) {
            (Some('.' | ',' | ':' | '/'), Some(next)) => next.is_ascii_digit(),
            (Some('-'), Some(next)) => is_word(next),
            (Some(next), _) => is_word(next) || next == '%',
            (None, _) => false,
        }
    }

    /// Whether the groups are a date: three, or the first three with a year of four digits.
    pub(crate) fn is_date(&self) -> bool {
        let [first, second, third, ..] = self.groups else { return false };
        let lengths = [first.digits.len(), second.digits.len(), third.digits.len()];
        let days = 1..32;
        let (day, month) = match lengths {
            [4, 1..=2, 1..=2] => (third, second),
            [1..=2, 1..=2, 4] => (first, second),
            [1..=2, 1..=2, 2] if self.groups.len() == 3 => (first, second),
            _ => return false,
        };
        day.is_in(days.clone()) && month.is_in(days) && (day.is_in(1..13) || month.is_in(1..13))
    }

    /// Whether it is a day, or a day and a time, without separators: `20240512`, `20240512103000`.
    pub(crate) fn is_day(&self) -> bool {
        let digits = self.groups[0].digits;
        let number = |range: Range<usize>| digits.get(range).and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0);
        matches!(digits.len(), 8 | 12 | 14)
            && (1900..2100).contains(&number(0..4))
            && (1..13).contains(&number(4..6))
            && (1..32).contains(&number(6..8))
    }

    /// Whether the group is a year.
    pub(crate) fn is_year(&self, group: usize) -> bool {
        self.groups[group].digits.len() == 4 && self.groups[group].is_in(1900..2100)
    }
}
