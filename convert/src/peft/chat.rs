//! Chat files of an adapter: training tools save tokenizer and chat template beside the weights, and the adapter may
//! have been trained with another template than its base.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::chat::{ChatSource, ChatTemplate};
use crate::chat_files::{self, ChatFiles};
use crate::generation::{EndCandidates, GenerationDefaults, add_ends};
use crate::{fields, listing, mapped, tokenizer};

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
        chat.notes.extend(files.notes.iter().map(|note| format!("{}: {note}", dir.display())));
        match files.template(base) {
            Ok(Some(own)) if base.is_none_or(|base| !same(base, &own)) => {
                chat.notes.extend(own.problem().map(|problem| format!("{}: {problem}", dir.display())));
                chat.template = Some(own);
            }
            Ok(_) => {}
            Err(error) => chat.notes.push(format!("{}: {error}; the base's template is used", dir.display())),
        }
        if let Some(vocabulary) = vocabulary {
            let generation = json(dir, "generation_config.json", &mut chat.notes);
            let (ends, notes) = ends(dir, &files, &generation, chat.template.as_ref(), vocabulary);
            chat.eos_token_ids = ends;
            chat.notes.extend(notes);
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
    let names = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.json"];
    let [config, special, template] = names.map(|name| json(dir, name, notes));
    let jinja = read(dir, "chat_template.jinja", notes);
    chat_files::read(&config, &special, &template, jinja.as_deref())
}

/// An object in a file; empty if there is no such file or it cannot be read.
fn json(dir: &Path, name: &str, notes: &mut Vec<String>) -> Map<String, Value> {
    let map = read(dir, name, notes).map(|bytes| fields::parse(&bytes)).transpose().unwrap_or_else(|error| {
        notes.push(format!("{}: {error}; it is not used", dir.join(name).display()));
        None
    });
    map.unwrap_or_default()
}

fn read(dir: &Path, name: &str, notes: &mut Vec<String>) -> Option<Vec<u8>> {
    let path = dir.join(name);
    let problem = match listing::obstacle(&path) {
        Some(problem) => problem,
        None if !path.is_file() => return None,
        None => match mapped::read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => return Some(bytes),
            Err(error) => error.to_string(),
        },
    };
    notes.push(format!("{}: {problem}; it is not used", path.display()));
    None
}

fn same(base: &ChatTemplate, own: &ChatTemplate) -> bool {
    let text = |template: &ChatTemplate| {
        let ChatSource { file: _, template, bos_token, eos_token, mut special_tokens } = template.clone().into();
        // Others that the template does not use make no difference.
        special_tokens.retain(|name, _| template.contains(name.as_str()));
        let (bos, eos) = (bos_token.unwrap_or_default(), eos_token.unwrap_or_default());
        (template.trim().to_owned(), bos, eos, special_tokens)
    };
    text(base) == text(own)
}

/// End-of-sequence tokens of the adapter's own files, as far as the base has them.
fn ends(
    dir: &Path,
    files: &ChatFiles,
    generation: &Map<String, Value>,
    template: Option<&ChatTemplate>,
    vocabulary: &tokenizers::Tokenizer,
) -> (Vec<u32>, Vec<String>) {
    let mut defaults = GenerationDefaults::default();
    let file = dir.join("generation_config.json").display().to_string();
    let added = vocabulary.get_added_tokens_decoder();
    // The size with added tokens would copy the whole vocabulary: milliseconds of each load.
    let size = added.keys().max().map_or(0, |last| *last as usize + 1).max(vocabulary.get_vocab_size(false));
    for id in defaults.token_ids(&file, generation, "eos_token_id", size) {
        defaults.add_end(id, "", &file);
    }
    if let Some(eos) = files.eos_token() {
        match vocabulary.token_to_id(eos) {
            Some(id) => defaults.add_end(id, eos, "the adapter's tokenizer_config.json"),
            None => {
                let note = format!("{}: eos_token {eos:?} is no token of the base; it is ignored", dir.display());
                defaults.notes.push(note);
            }
        }
    }
    if template.is_some() {
        let added = added.into_iter().map(|(id, token)| (token.content, id)).collect();
        let candidates = EndCandidates { added, lookalikes: BTreeMap::new() };
        add_ends(&mut defaults, &candidates, template, usize::MAX);
    }
    (defaults.eos_token_ids, defaults.notes)
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
