//! Secrets that are known by their names: `password: …`, `api_key=…`, "mon mot de passe est …". The value alone is found.
//!
//! A name is followed by a value in code, and by anything in prose. What is needed of a value depends on what stands between the
//! two: in quotes or after `=` nearly anything is a value, after "is" it has to look like one.

use std::ops::Range;

use regex::Regex;

use super::Finding;
use crate::{
    kind::Kind,
    pattern::{PatternError, compile},
    placeholder::{Placeholder, Start},
};

/// A name, and what stands between it and the value.
const NAME: &str = concat!(
    r"(?i)(?:",
    r"(?P<password>passwor[dt]|passwd|passphrase|passcode|kennwort|wachtwoord|mot[ ]de[ ]passe|contrase[ñn]a|parola[ ]d['’]ordine",
    r"|palavra[- ]passe|(?:(?-u:\b)|_)(?:senha|mdp|pwd|pw|pass))",
    r"|(?P<secret>api[ _-]?key|api[- ]?schl(?:ü|ue)ssel|cl[ée][ ](?:d['’]|de[ ]l['’])?api|clave[ ](?:de[ ])?(?:la[ ])?api",
    r"|chiave[ ](?:dell['’])?api|chave[ ](?:d[ae][ ])?api|secret(?:[ _-]?(?:access[ _-]?)?(?:key|token))?",
    r"|(?:access|private|account|signing|encryption)[ _-]?key|(?:access|auth|refresh|session|api|bot)[ _-]?token",
    r"|credentials?|(?-u:\b)clave(?:[ ]de[ ]acceso)?)",
    r"|(?P<token>token)",
    r")[0-9]?",
    // More of the name, "password (new)" and "password for the portal".
    r"(?P<more>[ ]\([^()\n]{1,24}\)|[ ](?:for|to|of|für|zum|zur|von|pour|de|du|del|della|di|do|da|para|per)[ ][^:=\n]{1,40}?)?",
    r#"(?:\\?["'`])?\]?[ \t\x{a0}\x{202f}]{0,8}"#,
    r"(?:(?P<assigned>:=|=>|==?)|(?P<colon>:)|(?P<is>(?:(?-u:\b)(?:is|was|ist|war|lautet|est|es)|è|é)(?:[ ]now|[ ]jetzt)?[ ]?:?[ \t]))",
    r"[ \t\x{a0}\x{202f}]{0,8}",
);
/// `--password …`
const FLAG: &str = r"--(?:password|passwd|pass|secret|token|api-key|access-key|client-secret)[ \t]+";
/// A key of JSON that names a secret.
const KEY: &str = concat!(
    r"(?i)(?P<password>passwor[dt]|passwd|passphrase|passcode|kennwort|contrase[ñn]a|senha|wachtwoord|mdp|pwd)$",
    r"|(?:api|access|private|secret|account|signing|encryption)[ _-]?key$|secret$|(?:^|[ _-]|access|auth|refresh|session|api|bot)token$"
);
/// Bytes of a value; longer ones are cut there.
const VALUE_BYTES_MAX: usize = 512;
/// What stands for a value, or says something of it.
const WORDS: &str = " any bool boolean bytes char int integer none nil null number object optional required str string text true false undefined \
    varchar changeme disabled empty enabled hidden incorrect invalid masked expired forgotten no password redacted reset secret see \
    tbd todo unknown wrong yes n/a your \
    abgelaufen falsch geändert gesperrt ja leer nein passwort siehe unbekannt unverändert vergessen \
    expiré non obligatoire oublié oui requis vide voir \
    caducada incorrecta obligatorio obligatoria olvidada requerido requerida sí ver \
    dimenticata errata obbligatoria obbligatorio richiesta richiesto scaduta si vedi \
    alterada esquecida expirada obrigatória obrigatório sim não ";

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// Something that people make up.
    Password,
    /// Something that machines draw.
    Key,
    /// A word that means other things as well.
    Token,
}

/// What connects a name and its value, from the strongest to the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Quoted,
    Assigned,
    Colon,
    Prose,
}

#[derive(Debug)]
pub(crate) struct Assignments {
    name: Regex,
    flag: Regex,
    key: Regex,
}

impl Assignments {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self {
            name: compile("names of secrets", NAME)?,
            flag: compile("flags of secrets", FLAG)?,
            key: compile("keys of secrets", KEY)?,
        })
    }

    pub(crate) fn find(&self, text: &str, findings: &mut Vec<Finding>) {
        let mut end = 0;
        let mut found = |value: Range<usize>| findings.push(Finding { kind: Kind::Secret, range: value });
        for matched in self.name.find_iter(text) {
            // Two names may share a value, "password = secret = …"; within a value there is no name.
            if matched.start() < end {
                continue;
            }
            // Groups are found in the match alone, which is faster than in the text.
            let Some(captures) = self.name.captures(matched.as_str()) else { continue };
            let has = |group: &str| captures.name(group).is_some();
            let name = match (has("password"), has("secret")) {
                (true, _) => Name::Password,
                (_, true) => Name::Key,
                _ => Name::Token,
            };
            let link = match (has("assigned"), has("colon")) {
                (true, _) if !has("more") => Link::Assigned,
                (_, true) if !has("more") => Link::Colon,
                _ => Link::Prose,
            };
            if let Some(value) = value(text, matched.end(), name, link) {
                end = value.end;
                found(value);
            }
        }
        for matched in self.flag.find_iter(text) {
            value(text, matched.end(), Name::Password, Link::Assigned).into_iter().for_each(&mut found);
        }
    }

    /// Whether a string of JSON is a secret, by its key.
    pub(crate) fn is_value_of(&self, key: &str, value: &str) -> bool {
        let Some(captures) = self.key.captures(key) else { return false };
        let name = if captures.name("password").is_some() { Name::Password } else { Name::Key };
        is_value(value, name, Link::Quoted)
    }
}

/// The value that starts here, if there is one.
fn value(text: &str, start: usize, name: Name, link: Link) -> Option<Range<usize>> {
    let rest = &text[start..];
    let quote = [r#"\""#, r"\'", "\"", "'", "`"].into_iter().find(|quote| rest.starts_with(quote));
    if let Some(value) = quote.and_then(|quote| quoted(&rest[quote.len()..], quote).map(|length| (quote.len(), length)))
    {
        let range = start + value.0..start + value.0 + value.1;
        return is_value(&text[range.clone()], name, Link::Quoted).then_some(range);
    }
    let value = bare(rest, link);
    let is_certain = match link {
        Link::Quoted | Link::Assigned => is_value(value, name, link),
        // In prose the sentence would go on after a word.
        Link::Colon => {
            is_value(value, name, Link::Prose) || (is_value(value, name, link) && !goes_on(&rest[value.len()..]))
        }
        Link::Prose => is_value(value, name, link),
    };
    is_certain.then_some(start..start + value.len())
}

/// The length of a quoted value on one line, up to the quote that ends it.
fn quoted(rest: &str, quote: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at < bytes.len().min(VALUE_BYTES_MAX) {
        if bytes[at..].starts_with(quote.as_bytes()) {
            return Some(at);
        }
        match bytes[at] {
            b'\n' => return None,
            b'\\' if quote.len() == 1 => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// A value without quotes: up to a space, to the next assignment of a list, without what ends a sentence.
fn bare(rest: &str, link: Link) -> &str {
    let length = rest
        .char_indices()
        .find(|(at, character)| {
            *at >= VALUE_BYTES_MAX
                || character.is_whitespace()
                || matches!(character, '"' | '<' | '>' | '`')
                || (matches!(character, '&' | ';' | ',') && link != Link::Prose && starts_assignment(&rest[at + 1..]))
        })
        .map_or(rest.len(), |(at, _)| at);
    without_end(&rest[..length])
}

/// A value without what ends a sentence or closes what was opened before it. Passwords end with exclamation marks more often than
/// sentences about them do.
fn without_end(value: &str) -> &str {
    let mut kept = value;
    while let Some(last) = kept.chars().next_back() {
        let opening = match last {
            '.' | ',' | ';' | ':' | '\'' | '»' | '“' | '”' | '’' => None,
            '!' | '?' if !kept.contains(|inner: char| inner.is_ascii_digit()) => None,
            ')' => Some('('),
            ']' => Some('['),
            '}' => Some('{'),
            _ => return kept,
        };
        if opening.is_some_and(|opening| kept.contains(opening)) {
            return kept;
        }
        kept = &kept[..kept.len() - last.len_utf8()];
    }
    kept
}

/// Whether `name=` or `name:` follows, as in connection strings and queries.
fn starts_assignment(rest: &str) -> bool {
    let rest = rest.trim_start_matches(' ');
    let name = rest.bytes().take(32).take_while(|byte| byte.is_ascii_alphanumeric() || b"_-. ".contains(byte)).count();
    rest.is_empty() || (name > 0 && rest[name..].starts_with(['=', ':']))
}

/// Whether a sentence goes on behind a value.
fn goes_on(rest: &str) -> bool {
    let line = rest.trim_start_matches([' ', '\t']);
    line.len() < rest.len() && line.starts_with(char::is_alphanumeric)
}

/// Whether a text can be the value of a name to which it is linked so.
fn is_value(value: &str, name: Name, link: Link) -> bool {
    if value.len() < 3 || stands_for_value(value) || (link != Link::Quoted && is_code(value)) {
        return false;
    }
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let letters = value.chars().filter(|character| character.is_alphabetic()).count();
    let has_symbol = value.contains(['!', '@', '#', '$', '%', '^', '&', '*', '_', '+', '=', '?', '~', '\\', '|']);
    let has_cases = value.chars().skip(1).any(char::is_uppercase) && value.chars().any(char::is_lowercase);
    match (name, link) {
        (Name::Password, Link::Quoted | Link::Assigned | Link::Colon) => true,
        (Name::Password, Link::Prose) => {
            let is_count =
                value.split_once('-').is_some_and(|(count, _)| count.bytes().all(|byte| byte.is_ascii_digit()));
            value.len() >= 5
                && !is_count
                && ((digits > 0 && letters > 0) || digits >= 6 || has_symbol || (has_cases && letters > 5))
        }
        (Name::Key, Link::Quoted | Link::Assigned) => {
            value.len() >= 6 && (digits > 0 || has_symbol || has_cases || value.len() >= 16)
        }
        (Name::Key, Link::Colon | Link::Prose) => {
            value.len() >= 6 && digits > 0 && (digits > 1 || has_symbol || has_cases)
        }
        (Name::Token, _) => value.len() >= 12 && digits > 1 && (letters > 1 || digits > 16),
    }
}

/// Whether it only stands for a value: a mask, a variable, a placeholder, a word for what a value is or should be.
fn stands_for_value(value: &str) -> bool {
    let is_mask = value.chars().all(|character| "*•●.xX_-#".contains(character));
    let is_variable =
        value.starts_with(['<', '{', '$']) && value.len() > 1 && value[1..].starts_with(['{', '(', '[', 'A', '_'])
            || value.starts_with('<') && value.ends_with('>')
            || value.starts_with("%(")
            || value.starts_with('[') && value.ends_with(']') && value.contains(' ');
    let is_ours = matches!(Placeholder::read(value.as_bytes()), Start::Whole(_, length) if length == value.len());
    let lower = value.to_lowercase();
    let is_blank = ["your_", "your-", "your ", "my_", "my-"].iter().any(|start| lower.starts_with(start))
        && ["key", "token", "secret", "password", "here", "key-here", "password here"]
            .iter()
            .any(|end| lower.ends_with(end));
    is_mask || is_variable || is_ours || is_blank || WORDS.contains(&format!(" {lower} "))
}

/// Whether it is an expression and no value: a call, an index, a path of names, a type.
fn is_code(value: &str) -> bool {
    let name = value.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.:&".contains(byte)).count();
    let is_name = value.bytes().all(|byte| byte.is_ascii_alphabetic() || b"_.:&".contains(&byte));
    let is_path = is_name && value.trim_end_matches(['.', ':']).contains(['.', '_', '&']);
    let starts_as_name = value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    is_path || (starts_as_name && value[name..].starts_with(['(', '[', '<']))
}

#[cfg(test)]
mod tests {
    use crate::{find::tests::check, kind::Kind};

    #[test]
    fn passwords_in_prose() {
        check(
            Kind::Secret,
            &[
                "password: «hunter2»",
                "Passwort: «Sommer», Benutzer: kai",
                "My password is «Tr0ub4dor&3».",
                "Das neue Passwort lautet: «Winter2024!»",
                "Mot de passe : «azerty99»\nMerci",
                "mon mot de passe est «Soleil#12»",
                "La contraseña es «Gato-4521»",
                "la password è «Roma1960»",
                "a senha é «flor_de_lis9»",
                "wachtwoord: «geheim»",
                "Password for the portal: «Xy7-plum»",
                "Password (new): «Xy7-plum»",
                "das Passwort: \"«geheim»\"",
            ],
        );
    }

    #[test]
    fn assignments_in_code() {
        check(
            Kind::Secret,
            &[
                "api_key=«x9y8z7w6»",
                "DB_PASSWORD='«p wd»'",
                "export API_KEY=\"«abcd1234efgh»\"",
                "secret = «x1y2z3a4»",
                "Server=db;User Id=ada;Password=«pa;ss»;Database=x",
                "https://example.com/?password=«abc»&user=x",
                "{\"password\": \"«hunter2»\", \"user\": \"ada\"}",
                r#"{\"password\": \"«hunter2»\"}"#,
                "config['password'] = '«hunter2»'",
                "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYZZZ»",
                "login --password «hunter2» --user ada",
                "clientSecret: «8f3kd9s2x»",
                "token: «4f9a8b7c6d5e4f3a2b1c»",
            ],
        );
    }

    #[test]
    fn other_texts() {
        check(
            Kind::Secret,
            &[
                "I forgot my password. Password: forgotten. The password is wrong.",
                "Password is required and must be at least 12 characters long.",
                "Password: see the attached sheet",
                "The password is case-sensitive, das Passwort ist 90 Tage gültig",
                "password: ********, password=${DB_PASSWORD}, password=<your-password>",
                "fn login(password: &str, secret: String) {}",
                "password = os.environ[\"DB\"]; password = getenv(\"X\"); pwd = args.password",
                "max_tokens=512, token: the, tokens: 1024, tokenizer=bert",
                "secretary: Ada, the secret: patience",
                "password: [SECRET_1] password=\"[SECRET_1]\"",
                "Resenha: ótima. Palabras clave: redes, datos",
                "api_key: your_api_key, api_key=\"YOUR-API-KEY\"",
                "passwords: 3 changed",
                "",
            ],
        );
    }
}
