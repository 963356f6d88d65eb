//! Numbers of bank accounts.

use regex::Regex;

use super::Finding;
use crate::{
    kind::Kind,
    pattern::{PatternError, compile},
};

/// A country and two digits of a checksum.
const START: &str = r"(?-u:\b)[A-Za-z]{2}[ ]?[0-9]{2}";

/// Lengths by country, of the register of ISO 13616.
const LENGTHS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

#[derive(Debug)]
pub(crate) struct Ibans {
    start: Regex,
}

impl Ibans {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self { start: compile("starts of IBANs", START)? })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        for found in self.start.find_iter(text) {
            if let Some(length) = length_of_iban(&text[found.start()..]) {
                findings.push(Finding { kind: Kind::Iban, range: found.start()..found.start() + length });
            }
        }
    }
}

/// The bytes of the IBAN that a text starts with. Characters may be set apart by single spaces or hyphens.
fn length_of_iban(text: &str) -> Option<usize> {
    let country = text.get(..2)?;
    let (_, length) = *LENGTHS.iter().find(|(known, _)| known.eq_ignore_ascii_case(country))?;
    let mut number = String::with_capacity(length);
    let mut end = 0;
    let mut is_apart = false;
    for (at, character) in text.char_indices() {
        if character.is_ascii_alphanumeric() {
            if number.len() == length {
                // Longer than its country's: unless a space ended it.
                if is_apart { break } else { return None }
            }
            number.push(character);
            is_apart = false;
            end = at + 1;
        } else if matches!(character, ' ' | '-' | '\u{a0}' | '\u{202f}') && !is_apart {
            is_apart = true;
        } else {
            break;
        }
    }
    // Prose that happens to have the checksum is mostly letters, or not all of one case.
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let has_case =
        number.bytes().any(|byte| byte.is_ascii_lowercase()) && number.bytes().any(|byte| byte.is_ascii_uppercase());
    (number.len() == length && digits * 2 >= length && !has_case && has_checksum(&number)).then_some(end)
}

/// ISO 7064, modulo 97: the first four characters at the end, letters as two digits.
fn has_checksum(number: &str) -> bool {
    let (start, rest) = number.split_at(4);
    let remainder = rest
        .chars()
        .chain(start.chars())
        .filter_map(|character| character.to_digit(36))
        .fold(0, |sum, value| if value < 10 { (sum * 10 + value) % 97 } else { (sum * 100 + value) % 97 });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    #[test]
    fn accounts() {
        check(
            Kind::Iban,
            &[
                "IBAN: «DE89 3704 0044 0532 0130 00».",
                "«GB29NWBK60161331926819», «FR14 2004 1010 0505 0001 3M02 606»",
                "auf «de89370400440532013000» und «DE 89 3704 0044 0532 0130 00»",
                "«ES91-2100-0418-4502-0005-1332» 2024",
                "«MT84MALT011000012345MTLCAST001S» «NO93 8601 1117 947»",
                "«NL91\u{a0}ABNA\u{a0}0417\u{a0}1643\u{a0}00»",
            ],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::Iban,
            &[
                "DE88 3704 0044 0532 0130 00",
                "DE8937040044053201300",
                "DE893704004405320130000",
                "XX89 3704 0044 0532 0130 00",
                "XDE89370400440532013000",
                "DE89  3704 0044 0532 0130 00",
            ],
        );
    }
}
