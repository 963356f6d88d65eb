//! Tokens that `tokenizer_config.json` or `added_tokens.json` declare beside `tokenizer.json`. transformers adds them to
//! the tokenizer when it loads one, so files that were edited by hand or by training tools often rely on it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::generation::looks_like_control;

/// A declared token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Its id according to the file, if the file says one.
    id: Option<u32>,
    token: AddedToken,
}

/// An entry of `added_tokens_decoder`.
#[derive(Deserialize)]
struct Entry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// The declared tokens in the order of their ids: those of `added_tokens_decoder`, or else of `added_tokens.json`, and
/// the special tokens that the files name (`named`).
pub(crate) fn declared(
    tokenizer_config: &Map<String, Value>,
    added_tokens: &Map<String, Value>,
    named: &BTreeSet<String>,
) -> Vec<Declared> {
    let mut tokens = BTreeMap::new();
    if let Some(decoder) = tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object) {
        for (id, entry) in decoder {
            let (Ok(id), Ok(entry)) = (id.parse::<u32>(), Entry::deserialize(entry)) else { continue };
            let special = entry.special || is_named(named, &entry.content);
            let token = AddedToken::from(entry.content, special)
                .single_word(entry.single_word)
                .lstrip(entry.lstrip)
                .rstrip(entry.rstrip)
                .normalized(entry.normalized.unwrap_or(!special));
            tokens.insert(id, token);
        }
    } else {
        for (text, id) in added_tokens {
            let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else { continue };
            tokens.insert(id, AddedToken::from(text.as_str(), is_named(named, text)));
        }
    }
    let listed: BTreeSet<&str> = tokens.values().map(|token| token.content.as_str()).collect();
    let others = named.iter().filter(|text| !listed.contains(text.as_str()) && is_named(named, text));
    let others: Vec<Declared> =
        others.map(|text| Declared { id: None, token: AddedToken::from(text.as_str(), true) }).collect();
    let tokens = tokens.into_iter().filter(|(_, token)| !token.content.is_empty());
    tokens.map(|(id, token)| Declared { id: Some(id), token }).chain(others).collect()
}

/// Whether a file names that text as a special token. Some models pad with an ordinary word, which stays one.
fn is_named(named: &BTreeSet<String>, text: &str) -> bool {
    looks_like_control(text) && named.contains(text)
}

/// Ids of the added tokens by text, declared ones included, as [`add`] makes them.
pub(crate) fn with_declared(
    added: Vec<(String, u32)>,
    declared: &[Declared],
    id_in_model: impl Fn(&str) -> Option<u32>,
) -> BTreeMap<String, u32> {
    let mut ids: BTreeMap<String, u32> = added.into_iter().collect();
    for Declared { id, token } in declared {
        if ids.contains_key(&token.content) {
            continue;
        }
        if let Some(id) = id_in_model(&token.content).or(*id) {
            ids.insert(token.content.clone(), id);
        }
    }
    ids
}

/// Adds declared tokens to a tokenizer. A token that the tokenizer has keeps its id; a new one needs the next free id,
/// which has to be that of the declaration and within the vocabulary of the model.
pub(crate) fn add(tokenizer: &mut Tokenizer, declared: &[Declared], vocab_size: usize) {
    let existing = tokenizer.get_added_tokens_decoder();
    let is_special: BTreeSet<&str> =
        existing.values().filter(|token| token.special).map(|token| token.content.as_str()).collect();
    let (mut known, mut new) = (Vec::new(), Vec::new());
    for Declared { id, token } in declared {
        // What is special according to one file is special.
        let special = token.special || is_special.contains(token.content.as_str());
        let token = token.clone().special(special);
        match tokenizer.token_to_id(&token.content) {
            Some(own) if existing.get(&own) == Some(&token) => {}
            Some(_) => known.push(token),
            None => new.extend(id.map(|id| (id, token))),
        }
    }
    let (special, plain): (Vec<AddedToken>, Vec<AddedToken>) = known.into_iter().partition(|token| token.special);
    tokenizer.add_special_tokens(&special);
    tokenizer.add_tokens(&plain);
    for (id, token) in new {
        let next = tokenizer.get_vocab_size(false) as u32;
        let last = tokenizer.get_added_tokens_decoder().keys().copied().max();
        let next = last.map_or(next, |last| next.max(last.saturating_add(1)));
        if id == next && (id as usize) < vocab_size {
            tokenizer.add_tokens(&[token]);
        }
    }
}

impl Declared {
    pub(crate) fn text(&self) -> &str {
        &self.token.content
    }

    /// Why a token cannot be used; for warnings.
    pub(crate) fn problem(&self, ids: &BTreeMap<String, u32>, vocab_size: usize) -> Option<String> {
        let id = *ids.get(&self.token.content)?;
        let text = &self.token.content;
        if id as usize >= vocab_size {
            return Some(format!(
                "the token {text:?} has id {id}, beyond the vocabulary of {vocab_size}; it is ignored"
            ));
        }
        let declared = self.id.filter(|declared| *declared != id)?;
        Some(format!("the token {text:?} is declared with id {declared}; it has {id} in tokenizer.json, which is used"))
    }
}

/// Ids of the model's vocabulary in a `tokenizer.json`, for these texts.
pub(crate) fn ids_in_model<'t>(bytes: &[u8], texts: impl Iterator<Item = &'t str>) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let Ok(whole) = serde_json::from_slice::<Value>(bytes) else { return found };
    for text in texts {
        let id = match &whole["model"]["vocab"] {
            Value::Object(ids) => ids.get(text).and_then(Value::as_u64),
            // Unigram: pairs of text and score, in the order of ids.
            Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == text).map(|at| at as u64),
            _ => None,
        };
        if let Some(id) = id.and_then(|id| u32::try_from(id).ok()) {
            found.insert(text.to_owned(), id);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokenizer() -> Tokenizer {
        let json = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
            "added_tokens": [{"id": 1, "content": "<b>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": false}],
            "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {"a": 0, "<b>": 1, "<c>": 2, "!": 3}, "merges": []}}"#;
        Tokenizer::from_bytes(json.as_bytes()).unwrap()
    }

    fn of(config: &Value, added: &Value, named: &[&str]) -> Vec<Declared> {
        let named = named.iter().map(|text| (*text).to_owned()).collect();
        declared(config.as_object().unwrap(), added.as_object().unwrap(), &named)
    }

    #[test]
    fn declared_tokens_are_added_as_in_transformers() {
        let decoder = json!({"1": {"content": "<b>", "special": true}, "2": {"content": "<c>", "special": true},
            "4": {"content": "<d>", "special": true}, "9": {"content": "<far>", "special": true}});
        let mut own = tokenizer();
        let tokens = of(&json!({"added_tokens_decoder": decoder}), &json!({}), &[]);
        add(&mut own, &tokens, 5);
        let added = own.get_added_tokens_decoder();
        let special: BTreeMap<u32, &str> =
            added.iter().filter(|(_, token)| token.special).map(|(id, token)| (*id, token.content.as_str())).collect();
        assert_eq!(special, BTreeMap::from([(1, "<b>"), (2, "<c>"), (4, "<d>")]));
        assert_eq!(own.encode("a<c><d>", false).unwrap().get_ids(), [0, 2, 4]);
    }

    #[test]
    fn named_special_tokens_are_special_and_ordinary_words_are_not() {
        let mut own = tokenizer();
        add(&mut own, &of(&json!({}), &json!({"<c>": 2}), &["<c>", "!", "<b>"]), 4);
        let added = own.get_added_tokens_decoder();
        assert!(added[&1].special && added[&2].special && !added.contains_key(&3));
    }

    #[test]
    fn ids_are_those_of_the_vocabulary_first() {
        let tokens = of(&json!({}), &json!({"<c>": 7, "<d>": 4, "<far>": 9}), &[]);
        let ids = with_declared(vec![("<b>".into(), 1)], &tokens, |text| (text == "<c>").then_some(2));
        assert_eq!(ids, BTreeMap::from([("<b>".into(), 1), ("<c>".into(), 2), ("<d>".into(), 4), ("<far>".into(), 9)]));
        let problems: Vec<String> = tokens.iter().filter_map(|token| token.problem(&ids, 5)).collect();
        assert!(problems.len() == 2 && problems[0].contains("id 7") && problems[1].contains("beyond"), "{problems:?}");
    }
}
