//! Parser of `tokens.yaml`.
//!
//! A list of entries, each with a `name` for logs and metrics, the token as `sha256` (the output of
//! `printf %s TOKEN | sha256sum`) or in plain (`token`), and optionally the `models` that it may name, the `group` of tokens that
//! are one tenant, the most urgent `priority` of its requests, their `weight` among tenants, their laxest `dataPolicy`, and their `limits`, for some models
//! `modelLimits` besides. Errors name the line and no token.

use std::collections::HashMap;

use slm_crds::{
    route::DataPolicy,
    yaml::{self, Entry, Node, Tree},
};

use super::table::{Caller, Grant, Hash, Models, Pattern, Table, hash};
use crate::quota::{CallerLimits, ModelLimits, RateLimits};

/// Most entries. Every request is compared with all of them.
const TOKENS_MAX: usize = 1000;
/// Most characters of a name, which becomes a metric's label.
const NAME_MAX: usize = 63;
/// Most patterns of an entry, and most characters of a pattern.
const MODELS_MAX: usize = 1000;
const MODEL_MAX: usize = 253;
/// Bounds of a token's length. Shorter ones are guessed, longer ones do not fit into a header everywhere.
const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 1024;
/// Largest limit of a minute.
const LIMIT_MAX: i64 = 1_000_000_000;
/// Largest share of busy workers.
const WEIGHT_MAX: i64 = 1000;
const FIELDS: [&str; 10] =
    ["name", "sha256", "token", "models", "group", "priority", "weight", "dataPolicy", "limits", "modelLimits"];
const LIMITS: [&str; 4] = ["requestsPerMinute", "tokensPerMinute", "concurrentRequests", "maxTokens"];

/// An error in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tokens.yaml line {line}: {what}")]
pub struct TokensError {
    /// Line, counted from 1.
    pub line: u32,
    /// The error, and the remedy.
    pub what: String,
}

/// # Errors
/// The first thing that is wrong.
pub(super) fn read(file: &[u8]) -> Result<Table, TokensError> {
    let text = std::str::from_utf8(file).map_err(|error| {
        let before = file.get(..error.valid_up_to()).unwrap_or_default();
        wrong(before.split(|byte| *byte == b'\n').count().try_into().unwrap_or(u32::MAX), "is not UTF-8")
    })?;
    let documents = yaml::documents(text).map_err(|error| wrong(error.line, error.what))?;
    let list = match documents.as_slice() {
        [] => return Err(wrong(1, "has no entry: nobody could call")),
        [list] => list,
        [_, second, ..] => return Err(wrong(second.line, "begins a second document; put all entries into one list")),
    };
    let Tree::List(items) = &list.tree else {
        return Err(wrong(list.line, "has to be a list of entries, each with `name` and `sha256` or `token`"));
    };
    if items.is_empty() || items.len() > TOKENS_MAX {
        return Err(wrong(list.line, format!("has {} entries; 1 to {TOKENS_MAX} are taken", items.len())));
    }
    let mut table = Table::default();
    let (mut names, mut hashes) = (HashMap::new(), HashMap::new());
    for item in items {
        let (hash, grant) = entry(item)?;
        let name = grant.name;
        if let Some(first) = names.insert(name, item.line) {
            return Err(wrong(item.line, format!("the name `{name}` is taken by the entry on line {first}")));
        }
        if let Some(first) = hashes.insert(hash, item.line) {
            return Err(wrong(item.line, format!("`{name}` has the same token as the entry on line {first}")));
        }
        table.push(hash, Caller::new(grant));
    }
    Ok(table)
}

fn entry(item: &Node) -> Result<(Hash, Grant<'_>), TokensError> {
    let Tree::Map(fields) = &item.tree else {
        return Err(wrong(item.line, "an entry has to have fields: `name`, and `sha256` or `token`"));
    };
    if let Some(unknown) = fields.iter().find(|field| !FIELDS.contains(&field.key.as_str())) {
        let shown: String = unknown.key.chars().take(40).collect();
        return Err(wrong(unknown.line, format!("the field `{shown}` is unknown; there are {}", FIELDS.join(", "))));
    }
    let name = name(item.get("name").ok_or_else(|| wrong(item.line, "`name` is missing"))?)?;
    let hash = match (item.get("sha256"), item.get("token")) {
        (Some(hash), None) => digest(hash)?,
        (None, Some(token)) => hash(plain(token)?.as_bytes()),
        (None, None) => return Err(wrong(item.line, format!("`{name}` has neither `sha256` nor `token`"))),
        (Some(_), Some(token)) => return Err(wrong(token.line, format!("`{name}` has both `sha256` and `token`"))),
    };
    let group = item.get("group").map(self::name).transpose()?;
    let priority_min = item.get("priority").map_or(Ok(0), priority)?;
    let models = item.get("models").map_or(Ok(Models::All), models)?;
    let data_policy = item.get("dataPolicy").map_or(Ok(DataPolicy::AllowExternal), data_policy)?;
    let limits = CallerLimits {
        all: item.get("limits").map_or(Ok(RateLimits::default()), |field| limits("limits", &field.value))?,
        models: item.get("modelLimits").map_or(Ok(Vec::new()), model_limits)?,
    };
    let weight = item.get("weight").map_or(Ok(1), weight)?;
    Ok((hash, Grant { name, group, priority_min, models, data_policy, limits, weight }))
}

fn weight(field: &Entry) -> Result<u32, TokensError> {
    let number = match &field.value.tree {
        Tree::Scalar(value) => value.as_i64().filter(|number| (1..=WEIGHT_MAX).contains(number)),
        _ => None,
    };
    let what =
        || format!("`weight` has to be an integer from 1 to {WEIGHT_MAX}: the share of busy workers, 1 without it");
    number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| wrong(field.line, what()))
}

/// The limits in the field `of`.
fn limits(of: &str, node: &Node) -> Result<RateLimits, TokensError> {
    let expected = || format!("`{of}` has to have some of the fields {}", LIMITS.join(", "));
    let Tree::Map(fields) = &node.tree else { return Err(wrong(node.line, expected())) };
    if let Some(unknown) = fields.iter().find(|field| !LIMITS.contains(&field.key.as_str())) {
        let shown: String = unknown.key.chars().take(40).collect();
        return Err(wrong(unknown.line, format!("the field `{shown}` is unknown; {}", expected())));
    }
    let limit = |key: &str| {
        let Some(field) = node.get(key) else { return Ok(None) };
        let number = match &field.value.tree {
            Tree::Scalar(value) => value.as_i64().filter(|number| (1..=LIMIT_MAX).contains(number)),
            _ => None,
        };
        let what =
            || format!("`{of}.{key}` has to be an integer from 1 to {LIMIT_MAX}; left out, there is no such limit");
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| wrong(field.line, what()))
    };
    let [requests_per_minute, tokens_per_minute, concurrent_requests, max_tokens] = LIMITS.map(limit);
    Ok(RateLimits {
        requests_per_minute: requests_per_minute?,
        tokens_per_minute: tokens_per_minute?,
        concurrent_requests: concurrent_requests?,
        max_tokens: max_tokens?,
    })
}

/// Limits by the names of models, adapters and routes.
fn model_limits(field: &Entry) -> Result<Vec<ModelLimits>, TokensError> {
    let expected = "`modelLimits` has to have names of models, adapters or routes as fields, each with limits";
    let Tree::Map(fields) = &field.value.tree else { return Err(wrong(field.line, expected)) };
    if fields.len() > MODELS_MAX {
        return Err(wrong(
            field.line,
            format!("`modelLimits` has {} names; at most {MODELS_MAX} are taken", fields.len()),
        ));
    }
    let one = |field: &Entry| {
        let names = pattern(&field.key).ok_or_else(|| wrong(field.line, NO_PATTERN))?;
        let limits = limits(&format!("modelLimits.{}", field.key), &field.value)?;
        Ok(ModelLimits { shown: field.key.as_str().into(), names, limits })
    };
    fields.iter().map(one).collect()
}

const NO_PATTERN: &str = "is no name of a model, an adapter or a route; `*` stands for any part of one";

/// A name of models, adapters or routes, with stars.
fn pattern(glob: &str) -> Option<Pattern> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_./:*".contains(c);
    ((1..=MODEL_MAX).contains(&glob.len()) && glob.chars().all(fine)).then(|| Pattern::new(glob))
}

fn data_policy(field: &Entry) -> Result<DataPolicy, TokensError> {
    text(field)?.parse().map_err(|error| wrong(field.line, format!("`dataPolicy`: {error}")))
}

fn priority(field: &Entry) -> Result<i32, TokensError> {
    let number = match &field.value.tree {
        Tree::Scalar(value) => value.as_i64().and_then(|number| i32::try_from(number).ok()),
        _ => None,
    };
    number.ok_or_else(|| {
        let what = "`priority` has to be an integer: the lowest that requests with this token may have, 0 without it";
        wrong(field.line, what)
    })
}

fn name(field: &Entry) -> Result<&str, TokensError> {
    let name = text(field)?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@/".contains(c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fine) {
        let key = &field.key;
        let what =
            format!("`{key}` has to be 1 to {NAME_MAX} letters, digits, or any of - _ . @ /: logs and metrics show it");
        return Err(wrong(field.line, what));
    }
    Ok(name)
}

fn digest(field: &Entry) -> Result<Hash, TokensError> {
    let mut hash = Hash::default();
    match hex::decode_to_slice(text(field)?, &mut hash) {
        Ok(()) => Ok(hash),
        Err(_) => Err(wrong(
            field.line,
            "`sha256` has to be 64 hexadecimal digits; `printf %s TOKEN | sha256sum` prints them",
        )),
    }
}

fn plain(field: &Entry) -> Result<&str, TokensError> {
    let token = text(field)?;
    // What RFC 6750 lets a header carry.
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    if !(TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) || !token.chars().all(fine) {
        let what = format!(
            "`token` has to be {TOKEN_MIN} to {TOKEN_MAX} letters, digits, or any of - . _ ~ + / =; `openssl rand -hex 32` makes one"
        );
        return Err(wrong(field.line, what));
    }
    Ok(token)
}

fn models(field: &Entry) -> Result<Models, TokensError> {
    let Tree::List(items) = &field.value.tree else {
        return Err(wrong(field.line, "`models` has to be a list of names; without it the token may use all"));
    };
    if items.is_empty() || items.len() > MODELS_MAX {
        let what = format!("`models` has {} names; 1 to {MODELS_MAX} are taken, and without it all", items.len());
        return Err(wrong(field.line, what));
    }
    let pattern = |item: &Node| item.text().and_then(pattern).ok_or_else(|| wrong(item.line, NO_PATTERN));
    Ok(Models::These(items.iter().map(pattern).collect::<Result<_, _>>()?))
}

fn text(field: &Entry) -> Result<&str, TokensError> {
    let key = &field.key;
    field.value.text().ok_or_else(|| wrong(field.line, format!("`{key}` has to be text; put it into quotes")))
}

fn wrong(line: u32, what: impl Into<String>) -> TokensError {
    TokensError { line, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `sixteen-or-more-1`.
    fn sha() -> String {
        hex::encode(hash(b"sixteen-or-more-1"))
    }

    #[test]
    fn hashes_and_tokens() {
        let text = format!(
            "- name: hashed\n  sha256: {}\n- name: plain\n  token: sixteen-or-more-2\n  models: [banking, 'support-*']\n",
            sha().to_uppercase()
        );
        let table = read(text.as_bytes()).expect("a table");
        let hashed = table.caller(b"sixteen-or-more-1").expect("a caller");
        assert_eq!((hashed.name().map(|name| &**name), hashed.may("anything")), (Some("hashed"), true));
        let plain = table.caller(b"sixteen-or-more-2").expect("a caller");
        assert!(plain.may("banking") && plain.may("support-en") && !plain.may("travel"));
        assert!(table.caller(sha().as_bytes()).is_none(), "a hash is no token");
        assert_eq!((hashed.tenant(), hashed.priority_min()), ("token:hashed", 0));
    }

    #[test]
    fn limits_of_a_token() {
        let text = "- name: a\n  token: sixteen-or-more-1\n  weight: 3\n  limits: {requestsPerMinute: 60, maxTokens: 100}\n  \
                    modelLimits:\n    big-*: {tokensPerMinute: 5000, concurrentRequests: 2, maxTokens: 10}\n";
        let table = read(text.as_bytes()).expect("a table");
        let caller = table.caller(b"sixteen-or-more-1").expect("a caller");
        assert_eq!(caller.weight(), 3);
        let limits = caller.limits();
        let all = RateLimits { requests_per_minute: Some(60), max_tokens: Some(100), ..RateLimits::default() };
        assert_eq!(limits.all, all);
        let big = &limits.models[0];
        assert_eq!(
            (&*big.shown, big.limits.tokens_per_minute, big.limits.concurrent_requests),
            ("big-*", Some(5000), Some(2))
        );
        assert_eq!((limits.max_tokens("big-one"), limits.max_tokens("small")), (Some(10), Some(100)));
    }

    #[test]
    fn tokens_of_a_group_are_one_tenant() {
        let text = "- name: a\n  token: sixteen-or-more-1\n  group: team\n  priority: -5\n\
                    - name: b\n  token: sixteen-or-more-2\n  group: team\n\
                    - name: team\n  token: sixteen-or-more-3\n";
        let table = read(text.as_bytes()).expect("a table");
        let [a, b, team] = ["sixteen-or-more-1", "sixteen-or-more-2", "sixteen-or-more-3"]
            .map(|token| table.caller(token.as_bytes()).expect("a caller"));
        assert_eq!((a.tenant(), a.priority_min()), ("group:team", -5));
        assert_eq!((b.tenant(), b.priority_min()), ("group:team", 0));
        assert_eq!(team.tenant(), "token:team");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let sha = sha();
        let one = format!("- name: a\n  sha256: {sha}\n");
        let cases = [
            (String::new(), 1, "nobody could call"),
            ("# nothing\n".to_owned(), 1, "nobody could call"),
            ("tokens: []\n".to_owned(), 1, "has to be a list"),
            ("[]\n".to_owned(), 1, "has 0 entries"),
            ("- a\n".to_owned(), 1, "has to have fields"),
            (format!("{one}---\n{one}"), 4, "a second document"),
            (format!("{one}  modles: [b]\n"), 3, "the field `modles` is unknown"),
            (format!("{one}  sha256: {sha}\n"), 3, "twice, first on line 2"),
            (format!("{one}{one}"), 3, "`a` is taken by the entry on line 1"),
            (format!("{one}- name: b\n  token: sixteen-or-more-1\n"), 3, "same token as the entry on line 1"),
            (format!("{one}  token: sixteen-or-more-2\n"), 3, "both"),
            ("- name: a\n".to_owned(), 1, "neither"),
            (format!("- sha256: {sha}\n"), 1, "`name` is missing"),
            (format!("- name: 1\n  sha256: {sha}\n"), 1, "put it into quotes"),
            (format!("- name: 'a b'\n  sha256: {sha}\n"), 1, "logs and metrics show it"),
            ("- name: a\n  sha256: abc\n".to_owned(), 2, "64 hexadecimal digits"),
            ("- name: a\n  token: short\n".to_owned(), 2, "16 to 1024"),
            ("- name: a\n  token: 'sixteen or more 1'\n".to_owned(), 2, "16 to 1024"),
            (format!("{one}  models: banking\n"), 3, "a list of names"),
            (format!("{one}  models:\n"), 3, "a list of names"),
            (format!("{one}  models: []\n"), 3, "has 0 names"),
            (format!("{one}  models:\n    - ok\n    - 'a b'\n"), 5, "no name of a model"),
            (format!("{one}- name: [\n"), 0, "not YAML"),
            (format!("{one}  group: 'a b'\n"), 3, "`group` has to be 1 to 63"),
            (format!("{one}  priority: high\n"), 3, "`priority` has to be an integer"),
            (format!("{one}  priority: 9999999999\n"), 3, "`priority` has to be an integer"),
            (format!("{one}  weight: 0\n"), 3, "`weight` has to be an integer from 1"),
            (format!("{one}  limits: 5\n"), 3, "`limits` has to have some of the fields requestsPerMinute"),
            (format!("{one}  limits: {{ requests: 5 }}\n"), 3, "the field `requests` is unknown"),
            (format!("{one}  limits:\n    maxTokens: 0\n"), 4, "`limits.maxTokens` has to be an integer from 1"),
            (format!("{one}  limits: {{ maxTokens: 5.5 }}\n"), 3, "`limits.maxTokens` has to be an integer from 1"),
            (format!("{one}  modelLimits: [banking]\n"), 3, "has to have names of models"),
            (format!("{one}  modelLimits:\n    'a b': {{}}\n"), 4, "no name of a model"),
            (format!("{one}  modelLimits:\n    b*:\n      maxTokens: x\n"), 5, "`modelLimits.b*.maxTokens` has to be"),
        ];
        for (text, line, what) in cases {
            let error = read(text.as_bytes()).expect_err(what);
            assert!(error.what.contains(what), "{what}: {error}");
            assert!(line == 0 || error.line == line, "{what}: {error}");
            assert!(!error.to_string().contains("sixteen"), "{error}");
        }
        assert_eq!(read(b"- name: a\n  token: \xff\n").expect_err("text"), wrong(2, "is not UTF-8"));
    }
}
