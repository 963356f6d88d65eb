//! Chat files of an adapter: training tools save tokenizer and chat template beside the weights, and the adapter may
//! have been trained with another template than its base.

use std::path::Path;

use serde_json::{Map, Value};

use crate::chat::{ChatSource, ChatTemplate};
use crate::chat_files::{self, ChatFiles};
use crate::generation::{GenerationDefaults, add_ends};
use crate::{mapped, tokenizer};

/// `tokenizer_config.json` lists every added token of a vocabulary.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// A `tokenizer.json` is only partly read.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Bound on tokens named in a warning.
const SHOWN: usize = 4;

/// Chat settings of an adapter that differ from its base's.
#[derive(Debug, Clone, Default)]
pub struct AdapterChat {
    /// Its template, if it differs.
    pub template: Option<ChatTemplate>,
    /// End-of-sequence ids in addition to the base's.
    pub eos_token_ids: Vec<u32>,
    /// Warnings about files that are not used, each with the file.
    pub notes: Vec<String>,
}

impl AdapterChat {
    /// Reads the chat files in `dir`, for a base with that template and vocabulary.
    #[must_use]
    pub fn read(dir: &Path, base: Option<&ChatTemplate>, vocabulary: Option<&tokenizers::Tokenizer>) -> Self {
        let mut chat = Self::default();
        let files = files(dir, &mut chat.notes);
        match files.template() {
            Ok(Some(own)) if base.is_none_or(|base| !same(base, &own)) => chat.template = Some(own),
            Ok(_) => {}
            Err(error) => chat.notes.push(format!("{}: {error}; the base's template is used", dir.display())),
        }
        if let Some(vocabulary) = vocabulary {
            let (ends, note) = ends(dir, &files, chat.template.as_ref(), vocabulary);
            chat.eos_token_ids = ends;
            chat.notes.extend(note);
        }
        chat.notes.extend(other_tokens(dir, vocabulary));
        chat
    }
}

/// The template's text in an adapter's folder. It is part of the adapter's identity, so a change makes a new version.
pub(super) fn source(dir: &Path) -> Option<String> {
    files(dir, &mut Vec::new()).source
}

fn files(dir: &Path, notes: &mut Vec<String>) -> ChatFiles {
    let mut json = |name: &str| -> Map<String, Value> {
        let path = dir.join(name);
        if !path.is_file() {
            return Map::new();
        }
        let read = mapped::read(&path, FILE_BYTES_MAX).map_err(|error| error.to_string());
        let map = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        map.unwrap_or_else(|problem| {
            notes.push(format!("{}: {problem}; it is not used", path.display()));
            Map::new()
        })
    };
    let (config, special, template) =
        (json("tokenizer_config.json"), json("special_tokens_map.json"), json("chat_template.json"));
    let jinja = mapped::read(&dir.join("chat_template.jinja"), FILE_BYTES_MAX).ok();
    chat_files::read(&config, &special, &template, jinja.as_deref())
}

fn same(base: &ChatTemplate, own: &ChatTemplate) -> bool {
    let text = |template: &ChatTemplate| {
        let ChatSource { file: _, template, bos_token, eos_token } = template.clone().into();
        (template.trim().to_owned(), bos_token.unwrap_or_default(), eos_token.unwrap_or_default())
    };
    text(base) == text(own)
}

/// End-of-sequence tokens of the adapter's own files, as far as the base has them.
fn ends(
    dir: &Path,
    files: &ChatFiles,
    template: Option<&ChatTemplate>,
    vocabulary: &tokenizers::Tokenizer,
) -> (Vec<u32>, Option<String>) {
    let mut defaults = GenerationDefaults::default();
    let mut note = None;
    if let Some(eos) = &files.eos_token {
        match vocabulary.token_to_id(eos) {
            Some(id) => defaults.add_end(id, eos, "the adapter's tokenizer_config.json"),
            None => note = Some(format!("{}: eos_token {eos:?} is no token of the base; it is ignored", dir.display())),
        }
    }
    if template.is_some() {
        let added = vocabulary.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special);
        let controls = special.map(|(id, token)| (token.content, id)).collect();
        add_ends(&mut defaults, &controls, template, usize::MAX);
    }
    (defaults.eos_token_ids, note)
}

/// A warning about tokens that the adapter was trained with and the base lacks.
fn other_tokens(dir: &Path, vocabulary: Option<&tokenizers::Tokenizer>) -> Option<String> {
    let path = dir.join("tokenizer.json");
    if !path.is_file() {
        return None;
    }
    let shown = path.display();
    let tokens = mapped::read(&path, TOKENIZER_BYTES_MAX).map_err(|error| error.to_string());
    let tokens = tokens.and_then(|bytes| tokenizer::added_in_json(&path, &bytes).map_err(|error| error.to_string()));
    let tokens = match tokens {
        Ok(tokens) => tokens,
        Err(problem) => return Some(format!("{shown}: {problem}; the base's tokenizer is used")),
    };
    let Some(vocabulary) = vocabulary else {
        return Some(format!("{shown} is not used: the base has no tokenizer"));
    };
    let others = tokens.iter().filter(|(text, id)| vocabulary.token_to_id(text) != Some(*id));
    let others: Vec<String> = others.map(|(text, _)| format!("{text:?}")).collect();
    if others.is_empty() {
        return None;
    }
    let more = if others.len() > SHOWN { ", …" } else { "" };
    let others = others[..others.len().min(SHOWN)].join(", ");
    Some(format!("{shown} has tokens that the base does not have ({others}{more}); the base's tokenizer is used"))
}
