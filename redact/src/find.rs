//! Where personal data is in a text.

mod around;
mod assignment;
mod card;
mod email;
mod iban;
mod ip;
mod phone;
mod token;

use std::{cmp::Reverse, collections::BTreeMap, ops::Range, sync::Arc};

use crate::{kind::Kind, pattern::PatternError, vault::Vault};

/// Bytes of a key of JSON that count as words before its value.
const KEY_BYTES_MAX: usize = 64;

/// A value in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub range: Range<usize>,
}

/// Finds personal data and secrets. Clones share their patterns.
#[derive(Clone, Debug)]
pub struct Redactor {
    finders: Arc<Finders>,
    kinds: Vec<Kind>,
}

#[derive(Debug)]
struct Finders {
    tokens: token::Tokens,
    assignments: assignment::Assignments,
    ibans: iban::Ibans,
    cards: card::Cards,
    emails: email::Emails,
    addresses: ip::Addresses,
    phones: phone::Phones,
}

impl Redactor {
    /// For all kinds. Compiles the patterns, which takes some milliseconds: once in a process.
    ///
    /// # Errors
    /// A pattern of this crate is wrong, which its tests exclude.
    pub fn new() -> Result<Self, PatternError> {
        let finders = Finders {
            tokens: token::Tokens::new()?,
            assignments: assignment::Assignments::new()?,
            ibans: iban::Ibans::new()?,
            cards: card::Cards::new()?,
            emails: email::Emails::new()?,
            addresses: ip::Addresses::new()?,
            phones: phone::Phones::new()?,
        };
        Ok(Self { finders: Arc::new(finders), kinds: Kind::ALL.to_vec() })
    }

    /// For these kinds alone. What is found of a kind does not depend on the others that are wanted.
    #[must_use]
    pub fn only(mut self, kinds: &[Kind]) -> Self {
        self.kinds = kinds.to_vec();
        self
    }

    /// A vault for a request that consists of these texts, or contains them. They are searched for placeholders of the caller's
    /// own, and for nothing else.
    pub fn vault<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> Vault {
        Vault::new(self.clone(), texts)
    }

    /// The values of a text, from left to right; none overlap.
    ///
    /// Where values overlap, a secret is taken before an IBAN, that before a card, and then e-mail, IP address and phone; of two of
    /// a kind the longer one, of two as long the first.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.finders.tokens.find(text, &mut findings);
        self.finders.assignments.find(text, &mut findings);
        self.finders.ibans.find(text, &mut findings);
        self.finders.cards.find(text, &mut findings);
        self.finders.emails.find(text, &mut findings);
        self.finders.addresses.find(text, &mut findings);
        self.finders.phones.find(text, &mut findings);
        let mut findings = disjoint(findings);
        findings.retain(|finding| self.kinds.contains(&finding.kind));
        findings
    }

    /// The values of a string that has a key: the key counts as words before it.
    pub(crate) fn find_of_key(&self, key: &str, value: &str) -> Vec<Finding> {
        if value.is_empty() || key.len() > KEY_BYTES_MAX {
            return self.find(value);
        }
        if self.kinds.contains(&Kind::Secret) && self.finders.assignments.is_value_of(key, value) {
            return vec![Finding { kind: Kind::Secret, range: 0..value.len() }];
        }
        let words = around::words_of_key(key);
        let start = words.len() + 2;
        let mut findings = self.find(&format!("{words}: {value}"));
        findings.retain(|finding| finding.range.start >= start);
        for finding in &mut findings {
            finding.range = finding.range.start - start..finding.range.end - start;
        }
        findings
    }
}

/// Those that are taken, where some overlap.
fn disjoint(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|Finding { kind, range }| (Reverse(kind.certainty()), Reverse(range.len()), range.start));
    let mut taken: BTreeMap<usize, Finding> = BTreeMap::new();
    for finding in findings {
        let before = taken.range(..finding.range.end).next_back();
        if before.is_none_or(|(_, before)| before.range.end <= finding.range.start) {
            taken.insert(finding.range.start, finding);
        }
    }
    taken.into_values().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What is found, as `KIND:value`.
    pub(crate) fn told(text: &str) -> Vec<String> {
        thread_local! {
            static REDACTOR: Redactor = Redactor::new().expect("patterns");
        }
        let findings = REDACTOR.with(|redactor| redactor.find(text));
        findings.into_iter().map(|Finding { kind, range }| format!("{kind}:{}", &text[range])).collect()
    }

    /// Checks that in each text what is between `«` and `»` is found as this kind, and nothing else is found.
    pub(crate) fn check(kind: Kind, texts: &[&str]) {
        for marked in texts {
            let wanted: Vec<_> = marked
                .split('«')
                .skip(1)
                .filter_map(|rest| rest.split_once('»'))
                .map(|(value, _)| format!("{kind}:{value}"))
                .collect();
            assert_eq!(told(&marked.replace(['«', '»'], "")), wanted, "{marked}");
        }
    }

    #[test]
    fn of_two_that_overlap_one_is_taken() {
        let finding = |kind, range| Finding { kind, range };
        let taken = disjoint(vec![
            finding(Kind::Phone, 0..20),
            finding(Kind::Card, 2..18),
            finding(Kind::Email, 30..40),
            finding(Kind::Secret, 25..31),
            finding(Kind::Secret, 28..38),
            finding(Kind::Phone, 40..50),
            finding(Kind::Phone, 45..55),
        ]);
        let expected = [finding(Kind::Card, 2..18), finding(Kind::Secret, 28..38), finding(Kind::Phone, 40..50)];
        assert_eq!(taken, expected);
    }

    #[test]
    fn kinds_that_are_not_wanted_stay() {
        let redactor = Redactor::new().expect("patterns").only(&[Kind::Email]);
        let found = redactor.find("postgres://ada:s3cret@db.example.com and 192.0.2.1 of ada@example.com");
        assert_eq!(found, [Finding { kind: Kind::Email, range: 54..69 }]);
    }

    #[test]
    fn a_secret_wins_over_what_it_contains() {
        assert_eq!(told("https://ada:pa55word@example.com/x"), ["SECRET:ada:pa55word"]);
        assert_eq!(told("password: ada@example.com"), ["SECRET:ada@example.com"]);
    }
}
