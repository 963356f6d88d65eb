//! Secrets that are known by their looks.

use regex::Regex;

use super::Finding;
use crate::{
    kind::Kind,
    pattern::{PatternError, compile},
};

/// Keys and tokens by the prefix that their issuers give them.
const PREFIXED: &str = concat!(
    r"(?-u:\b)(?:",
    r"eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}(?:\.[0-9A-Za-z_-]+){0,3}", // JSON web tokens
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}(?-u:\b)",                               // AWS
    r"|gh[pousr]_[0-9A-Za-z]{30,}|github_pat_[0-9A-Za-z_]{22,}",         // GitHub
    r"|glpat-[0-9A-Za-z_-]{20,}",                                        // GitLab
    r"|xox[a-z]-[0-9A-Za-z-]{10,}|xapp-[0-9A-Za-z-]{10,}",               // Slack
    r"|AIza[0-9A-Za-z_-]{35}|GOCSPX-[0-9A-Za-z_-]{20,}|ya29\.[0-9A-Za-z_-]{20,}", // Google
    r"|[sr]k_(?:live|test)_[0-9A-Za-z]{16,}|whsec_[0-9A-Za-z]{24,}",     // Stripe
    r"|hf_[0-9A-Za-z]{30,}",                                             // Hugging Face
    r"|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{40,}|dckr_pat_[0-9A-Za-z_-]{20,}", // registries
    r"|SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}",                      // SendGrid
    r")"
);
/// Keys of OpenAI, Anthropic and those that took the form over; names of styles start so, too.
const SK: &str = r"(?-u:\b)sk-[0-9A-Za-z_-]{20,}";
/// Of HTTP.
const AUTHORIZATION: &str = concat!(
    r#"(?i)(?-u:\b)(?:bearer|authorization[\\"']{0,2}[ ]?[:=][ ]?[\\"']{0,2}(?:basic|token|digest|apikey))[ \t]+"#,
    r"([0-9A-Za-z._~+/=-]{8,})"
);
/// Hooks of Slack, where the path is the secret.
const HOOK: &str = r"hooks\.slack\.com/services/([0-9A-Za-z/_-]{20,})";
/// `user:password@` of a URL.
const USER: &str = r#"://([^\s/?#@:"'<>]*:[^\s/?#"'<>]+)@"#;
/// The first line of a private key.
const KEY: &str = r"-----BEGIN [0-9A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----";
/// The start of its last line.
const KEY_ENDS: &str = "-----END ";

#[derive(Debug)]
pub(crate) struct Tokens {
    prefixed: Regex,
    sk: Regex,
    authorization: Regex,
    hook: Regex,
    user: Regex,
    key: Regex,
}

impl Tokens {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self {
            prefixed: compile("tokens", PREFIXED)?,
            sk: compile("keys of APIs", SK)?,
            authorization: compile("headers of authorization", AUTHORIZATION)?,
            hook: compile("hooks", HOOK)?,
            user: compile("users in URLs", USER)?,
            key: compile("private keys", KEY)?,
        })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        let mut found = |range| findings.push(Finding { kind: Kind::Secret, range });
        self.prefixed.find_iter(text).for_each(|token| found(token.range()));
        self.sk.find_iter(text).filter(|key| is_key(key.as_str())).for_each(|key| found(key.range()));
        for value in self.authorization.captures_iter(text).filter_map(|captures| captures.get(1)) {
            let token = value.as_str().trim_end_matches('.');
            if is_key(token)
                || token.len() >= 16 && token.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            {
                found(value.start()..value.start() + token.len());
            }
        }
        for captures in self.hook.captures_iter(text).chain(self.user.captures_iter(text)) {
            let value = captures.get(1).filter(|value| !value.as_str().contains(['$', '{']));
            value.into_iter().for_each(|value| found(value.range()));
        }
        let mut end = 0;
        for start in self.key.find_iter(text) {
            if start.start() >= end {
                end = end_of_key(text, start.end());
                found(start.start()..end);
            }
        }
    }
}

/// Whether it was drawn and not written: it has three digits or more, and a long part without hyphens.
fn is_key(text: &str) -> bool {
    text.bytes().filter(u8::is_ascii_digit).count() >= 3 && text.split('-').any(|part| part.len() >= 16)
}

/// The end of a private key whose first line ends here. A text may be cut before its last line: then it ends with the last line that
/// could be of a key.
fn end_of_key(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    // The first line of another key is as near as this one's end, so the time is linear for a text of first lines, too.
    let body = &rest[..rest.find("-----").unwrap_or(rest.len())];
    if let Some(last) = rest[body.len()..].strip_prefix(KEY_ENDS) {
        let length = last.find("-----").filter(|length| *length <= 64).map_or(0, |length| length + 5);
        return start + body.len() + KEY_ENDS.len() + length;
    }
    let of_key = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\\".contains(&byte);
    let lines = body.split_inclusive('\n').take_while(|line| line.trim().bytes().all(of_key));
    start + body[..lines.map(str::len).sum()].trim_end().len()
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    /// Written in two parts, so that nobody's search for leaked keys stops at this file.
    fn check_prefixed(texts: &[(&str, &str)]) {
        for (start, rest) in texts {
            check(Kind::Secret, &[&format!("use «{start}{rest}», then"), &format!("«{start}{rest}».")]);
        }
    }

    #[test]
    fn tokens() {
        let long = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9";
        check_prefixed(&[
            ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
            ("AKI", "AQWERTYUIOP123456"),
            ("ASI", "AQWERTYUIOP123456"),
            ("gh", &format!("p_{long}")),
            ("github_", &format!("pat_{long}")),
            ("xox", "b-123456789012-abcDEF123456"),
            ("AIz", "aSyA1234567890abcdefghijklmnopqrstuv"),
            ("sk-", &format!("proj-{long}")),
            ("sk-", &format!("ant-api03-{long}-xyz_AA")),
            ("h", &format!("f_{long}")),
            ("sk_", &format!("live_{long}")),
            ("glp", "at-abcDEF123456ghiJKL78"),
        ]);
    }

    #[test]
    fn parts_of_urls_and_headers() {
        check(
            Kind::Secret,
            &[
                "postgres://«ada:p@ss:w0rd»@db.example.com:5432/x",
                "https://«:tok3n»@example.com and https://example.com:8080/@ada",
                "https://${USER}:${PASSWORD}@example.com",
                "Authorization: Bearer «abcdef1234567890».",
                "\"Authorization\": \"Basic «YWRhOnNlY3JldDEyMw==»\"",
                "https://hooks.slack.com/services/«T00000000/B00000000/abcDEF123456ghiJKL789mno»",
            ],
        );
    }

    #[test]
    fn private_keys() {
        let key =
            |kind: &str| format!("«-----BEGIN {kind}-----\nMIIEvQ1234+/abc=\nabcd\n-----END {kind}-----»\nand more");
        let escaped = key("RSA PRIVATE KEY").replace('\n', "\\n");
        let cut = "«-----BEGIN PRIVATE KEY-----\nMIIEvQ1234+/abc=\nMIIE»\n\nThat was all, thank you";
        let two = format!("{}\n{}", cut, key("EC PRIVATE KEY"));
        check(
            Kind::Secret,
            &[&key("PRIVATE KEY"), &key("PGP PRIVATE KEY BLOCK"), &key("OPENSSH PRIVATE KEY"), &escaped, cut, &two],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::Secret,
            &[
                "sk-folding-cube-animation-1 sk-circle-fade-dot-animation-2 task-1234567890123456789012",
                "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
                "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "550e8400-e29b-41d4-a716-446655440000 sha256:9f86d081",
                "the bearer authentication of certificates, ghp_short, hf_model",
                "see https://example.com:8080/a?b=c",
            ],
        );
    }
}
