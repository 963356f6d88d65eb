//! Addresses of the Internet Protocol.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use super::{
    Finding,
    around::{before, is_word},
};
use crate::{
    kind::Kind,
    pattern::{PatternError, compile},
};

/// Numbers and dots, as many as there are: three or five numbers are versions.
const V4: &str = r"[0-9]+(?:\.[0-9]+)+";
/// Digits of base sixteen and colons, perhaps with a version 4 at the end.
const V6: &str = r"[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*";
/// Words before four numbers that are no address: versions, and sections of a text.
const WORDS: &str = concat!(
    r"(?i)(?:version[a-zà-ÿ]*|versi[oóò]n[ei]?|vers[aã]o|(?-u:\b)ver|(?-u:\b)v|release|firmware|build|revision|(?-u:\b)rev",
    r"|section|chapter|clause|abschnitt|kapitel|ziffer|punkt|absatz|chapitre|article|artikel|secci[oó]n|cap[ií]tulo|sezione|capitolo",
    r"|se[cç][cç]?[aã]o|paragra[a-z]*|§|(?-u:\b)oid)[ .:#=\x{a0}]{0,3}$"
);
const WORDS_BYTES_MAX: usize = 24;

#[derive(Debug)]
pub(crate) struct Addresses {
    v4: Regex,
    v6: Regex,
    words: Regex,
}

impl Addresses {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self {
            v4: compile("IPv4 addresses", V4)?,
            v6: compile("IPv6 addresses", V6)?,
            words: compile("words before versions", WORDS)?,
        })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        for found in self.v4.find_iter(text) {
            let is_address = found.as_str().parse::<Ipv4Addr>().is_ok_and(names_a_machine);
            if is_address && self.stands_alone(text, found.start(), found.end()) {
                findings.push(Finding { kind: Kind::IpAddress, range: found.range() });
            }
        }
        for found in self.v6.find_iter(text) {
            let is_within = text[..found.start()].ends_with(|before| is_word(before) || before == '.')
                || text[found.end()..].starts_with(is_word);
            // The end of a sentence, or what the address is the subject of.
            let address = found.as_str().trim_end_matches('.');
            let address = if address.ends_with("::") { address } else { address.trim_end_matches(':') };
            if !is_within && is_v6(address) {
                findings.push(Finding { kind: Kind::IpAddress, range: found.start()..found.start() + address.len() });
            }
        }
    }

    /// Whether a version 4 address is one: no part of a name, a path or a product, and no version.
    fn stands_alone(&self, text: &str, start: usize, end: usize) -> bool {
        let ahead = before(text, start, WORDS_BYTES_MAX);
        let mut backwards = ahead.chars().rev();
        let is_joined = match (backwards.next(), backwards.next()) {
            (Some('-'), Some(first)) => is_word(first) && !first.is_ascii_digit(),
            // Products name their version so: `Chrome/120.0.0.0`.
            (Some('/'), Some(first)) => is_word(first),
            (Some('.'), _) => true,
            (Some(first), _) => is_word(first),
            (None, _) => false,
        };
        let mut forwards = text[end..].chars();
        let goes_on = match (forwards.next(), forwards.next()) {
            (Some('-'), Some(next)) => next.is_alphabetic(),
            (Some(next), _) => is_word(next),
            (None, _) => false,
        };
        !is_joined && !goes_on && !self.words.is_match(ahead)
    }
}

/// Whether an address says anything of anybody. This machine, any machine, all machines and netmasks do not.
fn names_a_machine(address: Ipv4Addr) -> bool {
    let is_mask =
        address.octets()[0] == 255 && address.to_bits().leading_ones() + address.to_bits().trailing_zeros() >= 32;
    !(address.is_loopback() || address.is_unspecified() || address.is_broadcast() || is_mask)
}

/// Code has `a::b`, `[1::2]` and bytes with colons between them; addresses that people use start with a group of three digits or more.
fn is_v6(text: &str) -> bool {
    let Ok(address) = text.parse::<Ipv6Addr>() else { return false };
    if let Some(v4) = address.to_ipv4_mapped() {
        return names_a_machine(v4);
    }
    let mut groups = text.split(':');
    let has_start = groups.next().is_some_and(|group| group.len() >= 3) || text.starts_with("64:");
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    !address.is_loopback() && !address.is_unspecified() && has_start && has_digit
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    #[test]
    fn addresses() {
        check(
            Kind::IpAddress,
            &[
                "from «192.0.2.17», «10.0.0.1»:8080 and «198.51.100.0»/24.",
                "http://«203.0.113.5»/x, src=«10.1.2.3» («172.16.0.9»)",
                "«10.0.0.1»-«10.0.0.9»",
                "at «2001:db8::1». And «fe80::1ff:fe23:4567:890a»%eth0: down",
                "[«2001:DB8:0:0:8:800:200C:417A»]:443 «2001:db8::»/32 «2001:db8::1»: error",
                "«::ffff:192.0.2.1» «64:ff9b::c000:221»",
            ],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::IpAddress,
            &[
                "1.2.3, 1.2.3.4.5, 256.1.1.1, 10.0.19041.1, 01.02.03.04",
                "version 1.2.3.4, v1.2.3.4, Versión: 4.1.0.2, Kapitel 3.1.2.4, § 1.2.3.4",
                "Chrome/120.0.0.0 foo-1.2.3.4.tar lib-1.2.3.4-beta",
                "127.0.0.1, 0.0.0.0, ::1, ::, 255.255.255.0",
                "12:34:56, 00:1a:2b:3c:4d:5e, 00:11:22:33:44:55:66:77",
                "std::fs, a::b, dead::beef, x[1::2], Ada::Face1",
                "2024-01-02T03:04:05",
            ],
        );
    }
}
