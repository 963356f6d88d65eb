//! Addresses of e-mail.

use regex::Regex;

use super::Finding;
use crate::{
    kind::Kind,
    pattern::{PatternError, compile},
};

/// Letters of any script, since local parts and domains may have them. `%40` is an `@` in a URL.
const ADDRESS: &str = r"[\p{L}\p{N}._+'’-]+(?:@|%40)(?:[\p{L}\p{N}-]+\.)+(?:xn--[0-9A-Za-z-]+|\p{L}{2,})";
/// `ada [at] example [dot] com`, as people write it where machines read along.
const SPELLED: &str = concat!(
    r"[\p{L}\p{N}._+-]+[ ]?[\[({<][ ]?(?i:at|ät|arroba|chiocciola|arobase)[ ]?[\])}>][ ]?",
    r"(?:[\p{L}\p{N}-]+(?:\.|[ ]?[\[({<][ ]?(?i:dot|punkt|point|punto|ponto)[ ]?[\])}>][ ]?))+\p{L}{2,}"
);
/// Names of pictures for dense displays look like addresses: `logo@2x.png`.
const PICTURES: [&str; 7] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "avif"];

#[derive(Debug)]
pub(crate) struct Emails {
    address: Regex,
    spelled: Regex,
}

impl Emails {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self {
            address: compile("addresses of e-mail", ADDRESS)?,
            spelled: compile("spelled addresses of e-mail", SPELLED)?,
        })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        for found in self.address.find_iter(text) {
            let address = found.as_str();
            let Some(at) = address.find('@').or_else(|| address.find("%40")) else { continue };
            let (local, domain) = address.split_at(at);
            let skipped = skipped(local);
            let rest = text[found.end()..].chars().next();
            if skipped == local.len() || is_picture(domain) || is_repository(&local[skipped..], rest) {
                continue;
            }
            findings.push(Finding { kind: Kind::Email, range: found.start() + skipped..found.end() });
        }
        for found in self.spelled.find_iter(text) {
            findings.push(Finding { kind: Kind::Email, range: found.range() });
        }
    }
}

/// Bytes at the start of a local part that belong to the text before it: quotes, dots, and the elided article of `l'ada@…`, but
/// not the name of `o'brien@…`.
fn skipped(local: &str) -> usize {
    let mut skipped = local.len() - local.trim_start_matches(|first: char| !first.is_alphanumeric()).len();
    if let Some((at, quote)) = local[skipped..].char_indices().find(|(_, inner)| matches!(inner, '\'' | '’')) {
        let before = &local[skipped..skipped + at];
        let is_article = before.chars().all(char::is_alphabetic) && !before.eq_ignore_ascii_case("o");
        if is_article && skipped + at + quote.len_utf8() < local.len() {
            skipped += at + quote.len_utf8();
        }
    }
    skipped
}

fn is_picture(domain: &str) -> bool {
    domain.rsplit('.').next().is_some_and(|last| PICTURES.iter().any(|name| last.eq_ignore_ascii_case(name)))
}

/// `git@host:path` is where a repository lies and not anybody's address.
fn is_repository(local: &str, next: Option<char>) -> bool {
    local == "git" && matches!(next, Some(':' | '/'))
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    #[test]
    fn addresses() {
        check(
            Kind::Email,
            &[
                "Write to «ada.lovelace+work@mail.example.com», or <«b_2@example.org»>.",
                "mailto:«max@example.com»?subject=x&cc=«erika%40example.org»",
                "L'adresse d'«anna@example.com» et «o'brien@example.com», '«quoted@example.com»'",
                "Die «max@example.com»-Adresse von «jürgen@müller.example»",
                "«ada@xn--bcher-kva.example»",
                "_«ada@example.com»_ «ADA@EXAMPLE.COM»",
                "«ada [at] example [dot] com» or «ada(at)example.org» or «ada (arroba) example (punto) es»",
                "ssh://«ada@host.example.com»/home",
            ],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::Email,
            &[
                "@ada on the network, a@b, ada@localhost, ada@example.c, lodash@4.17.21, @types/node@20.1.0",
                "logo@2x.png icon@3x.JPG",
                "git@github.com:example/project.git ssh://git@github.com/example/project",
                "we meet @ example.com, 5 @ 3.50",
                "array [at] position",
                "'@example.com",
            ],
        );
    }
}
