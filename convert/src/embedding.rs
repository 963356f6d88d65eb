//! How a vector is made of the states of a text's tokens: pooling and normalisation, as sentence-transformers writes them
//! beside a model.
//!
//! `modules.json` lists modules in the order of their work, each with a folder for its own `config.json`. A module, or a setting,
//! that would change a vector and is not known here is refused by name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::CheckpointError;
use crate::{fields, mapped};

const MODULES: &str = "modules.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const MODEL: &str = "config_sentence_transformers.json";
/// No real model has more.
const MODULES_MAX: usize = 16;

/// How vectors are made of states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingSettings {
    /// One vector of those of all tokens.
    pub pooling: Pooling,
    /// Whether vectors have a length of one.
    pub normalize: bool,
    /// Bound on the tokens of a text; `None` for that of the model.
    pub tokens_max: Option<usize>,
    /// Put before each text.
    pub prompt: String,
}

/// One vector of those of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Mean of all tokens.
    Mean,
    /// Sum of all tokens, divided by the root of their number.
    MeanSqrt,
    /// Mean in which the first token counts once, the second one twice and so on.
    WeightedMean,
    /// Largest value of each column.
    Max,
    /// First token.
    First,
    /// Last token.
    Last,
}

/// Those of a model without any files of sentence-transformers, as that reads it.
impl Default for EmbeddingSettings {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalize: false, tokens_max: None, prompt: String::new() }
    }
}

/// Names of poolings in flags and in `pooling_mode`.
const POOLINGS: [(&str, &str, Pooling); 6] = [
    ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrt),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Pooling::WeightedMean),
    ("pooling_mode_max_tokens", "max", Pooling::Max),
    ("pooling_mode_cls_token", "cls", Pooling::First),
    ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
];

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Module {
    /// Last part of its type, such as `Pooling`.
    fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

type Files = BTreeMap<String, Vec<u8>>;

/// Adds the files of sentence-transformers in the folder `path` to `files`, if there are any.
pub(crate) fn read_files(path: &Path, files: &mut Files, bytes_max: u64) -> Result<(), CheckpointError> {
    if !path.join(MODULES).is_file() {
        return Ok(());
    }
    for name in [MODULES, TRANSFORMER, MODEL] {
        add(path, files, name, bytes_max)?;
    }
    for module in modules(path, files.get(MODULES).map(Vec::as_slice).unwrap_or_default())? {
        if !module.path.is_empty() {
            add(path, files, &config(&module), bytes_max)?;
        }
    }
    Ok(())
}

fn add(path: &Path, files: &mut Files, name: &str, bytes_max: u64) -> Result<(), CheckpointError> {
    let file = path.join(name);
    if file.is_file() {
        let bytes = mapped::read(&file, bytes_max).map_err(|source| CheckpointError::Io { path: file, source })?;
        files.insert(name.to_owned(), bytes);
    }
    Ok(())
}

fn config(module: &Module) -> String {
    format!("{}/config.json", module.path)
}

fn modules(path: &Path, bytes: &[u8]) -> Result<Vec<Module>, CheckpointError> {
    let wrong = |problem: String| CheckpointError::Embedding { path: path.join(MODULES), problem };
    let modules: Vec<Module> = serde_json::from_slice(bytes)
        .map_err(|error| wrong(format!("not a list of modules: {error}; fetch the file again")))?;
    if modules.len() > MODULES_MAX {
        return Err(wrong(format!("{} modules; the limit is {MODULES_MAX}", modules.len())));
    }
    // A module must be within the folder of the model.
    let inside = |name: &str| name.is_empty() || Path::new(name).file_name().is_some_and(|last| last == name);
    match modules.iter().find(|module| !inside(&module.path)) {
        Some(module) => Err(wrong(format!("path {:?} of a module is not the name of a folder", module.path))),
        None => Ok(modules),
    }
}

/// The settings in `files` of the folder `path`.
pub(crate) fn settings(path: &Path, files: &Files) -> Result<EmbeddingSettings, CheckpointError> {
    let Some(bytes) = files.get(MODULES) else { return Ok(EmbeddingSettings::default()) };
    let json = |name: &str| match files.get(name) {
        None => Ok(Map::new()),
        Some(bytes) => fields::parse(bytes)
            .map_err(|error| CheckpointError::Json { path: path.join(name), problem: error.to_string() }),
    };
    let wrong = |file: &str, problem: String| CheckpointError::Embedding { path: path.join(file), problem };
    let mut settings = EmbeddingSettings::default();
    let mut pooled = false;
    for module in modules(path, bytes)? {
        match module.name() {
            "Transformer" => {}
            "Pooling" => {
                let file = config(&module);
                settings.pooling = pooling(&json(&file)?).map_err(|problem| wrong(&file, problem))?;
                pooled = true;
            }
            "Normalize" => settings.normalize = true,
            other => {
                let known = "Transformer, Pooling and Normalize are supported";
                return Err(wrong(MODULES, format!("module `{other}` is not supported; {known}")));
            }
        }
    }
    if !pooled {
        return Err(wrong(MODULES, "no Pooling module, so there is no vector of a text".to_owned()));
    }
    let transformer = json(TRANSFORMER)?;
    settings.tokens_max = tokens_max(&transformer).map_err(|problem| wrong(TRANSFORMER, problem))?;
    settings.prompt = prompt(&json(MODEL)?).map_err(|problem| wrong(MODEL, problem))?;
    Ok(settings)
}

fn pooling(config: &Map<String, Value>) -> Result<Pooling, String> {
    if config.get("include_prompt").is_some_and(|include| *include == Value::Bool(false)) {
        return Err("`include_prompt` is false, which is not supported: prompts are pooled, too".to_owned());
    }
    if let Some(mode) = config.get("pooling_mode").filter(|mode| !mode.is_null()) {
        let known = POOLINGS.iter().find(|(_, name, _)| mode.as_str() == Some(name));
        return known.map(|(.., pooling)| *pooling).ok_or_else(|| {
            let names: Vec<_> = POOLINGS.iter().map(|(_, name, _)| *name).collect();
            format!("`pooling_mode` is {}; supported: {}", fields::shown(mode), names.join(", "))
        });
    }
    let set = |(flag, _, _): &&(&str, &str, Pooling)| config.get(*flag) == Some(&Value::Bool(true));
    let chosen: Vec<_> = POOLINGS.iter().filter(set).collect();
    match chosen.as_slice() {
        [(.., pooling)] => Ok(*pooling),
        [] => Err("no pooling mode is chosen; set one of pooling_mode_…".to_owned()),
        several => {
            let names: Vec<_> = several.iter().map(|(flag, ..)| *flag).collect();
            Err(format!("{} are chosen together, which is not supported: set one of them", names.join(" and ")))
        }
    }
}

fn tokens_max(config: &Map<String, Value>) -> Result<Option<usize>, String> {
    if config.get("do_lower_case") == Some(&Value::Bool(true)) {
        return Err("`do_lower_case` is true, which is not supported: the tokenizer has to do it".to_owned());
    }
    match config.get("max_seq_length").filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => {
            match value.as_u64().and_then(|tokens| usize::try_from(tokens).ok()).filter(|tokens| *tokens > 0) {
                Some(tokens) => Ok(Some(tokens)),
                None => Err(format!("`max_seq_length` is {}; expected a number of tokens", fields::shown(value))),
            }
        }
    }
}

/// The prompt that is used when a caller names none.
fn prompt(config: &Map<String, Value>) -> Result<String, String> {
    let Some(name) = config.get("default_prompt_name").and_then(Value::as_str) else { return Ok(String::new()) };
    let prompt = config.get("prompts").and_then(|prompts| prompts.get(name)).and_then(Value::as_str);
    prompt.map(str::to_owned).ok_or_else(|| format!("`default_prompt_name` is {name:?}, which is none of `prompts`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(modules: Value, pooling: Value, transformer: Value, model: Value) -> Result<EmbeddingSettings, String> {
        let files =
            [(MODULES, modules), ("1_Pooling/config.json", pooling), (TRANSFORMER, transformer), (MODEL, model)];
        let files = files.map(|(name, value)| (name.to_owned(), value.to_string().into_bytes())).into();
        settings(Path::new("m"), &files).map_err(|error| error.to_string())
    }

    fn list(kinds: &[&str]) -> Value {
        let module = |(index, kind): (usize, &&str)| {
            let path = if index == 0 { String::new() } else { format!("{index}_{kind}") };
            json!({ "idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") })
        };
        kinds.iter().enumerate().map(module).collect()
    }

    #[test]
    fn settings_are_those_of_the_files() {
        let mean = json!({ "word_embedding_dimension": 384, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true });
        let minilm = read(
            list(&["Transformer", "Pooling", "Normalize"]),
            mean,
            json!({ "max_seq_length": 256, "do_lower_case": false }),
            json!({ "__version__": {} }),
        );
        let expected =
            EmbeddingSettings { pooling: Pooling::Mean, normalize: true, tokens_max: Some(256), prompt: String::new() };
        assert_eq!(minilm, Ok(expected));
        let named = read(
            list(&["Transformer", "Pooling"]),
            json!({ "pooling_mode": "lasttoken" }),
            json!({ "max_seq_length": null }),
            json!({ "prompts": { "query": "query: " }, "default_prompt_name": "query" }),
        );
        let expected = EmbeddingSettings {
            pooling: Pooling::Last,
            normalize: false,
            tokens_max: None,
            prompt: "query: ".to_owned(),
        };
        assert_eq!(named, Ok(expected));
        assert_eq!(settings(Path::new("m"), &Files::new()).unwrap(), EmbeddingSettings::default());
    }

    #[test]
    fn what_would_change_vectors_is_refused_by_name() {
        let cls = || json!({ "pooling_mode_cls_token": true });
        let two = || list(&["Transformer", "Pooling"]);
        let none = || json!({});
        for (modules, pooling, transformer, model, words) in [
            (list(&["Transformer", "Pooling", "Dense"]), cls(), none(), none(), "module `Dense` is not supported"),
            (list(&["Transformer"]), none(), none(), none(), "no Pooling module"),
            (two(), none(), none(), none(), "no pooling mode is chosen"),
            (
                two(),
                json!({ "pooling_mode_cls_token": true, "pooling_mode_max_tokens": true }),
                none(),
                none(),
                "pooling_mode_max_tokens and pooling_mode_cls_token are chosen together",
            ),
            (two(), json!({ "pooling_mode": "attention" }), none(), none(), "`pooling_mode` is"),
            (two(), json!({ "pooling_mode": "cls", "include_prompt": false }), none(), none(), "`include_prompt`"),
            (two(), cls(), json!({ "do_lower_case": true }), none(), "`do_lower_case`"),
            (two(), cls(), json!({ "max_seq_length": 0 }), none(), "`max_seq_length`"),
            (two(), cls(), none(), json!({ "default_prompt_name": "q" }), "none of `prompts`"),
            (json!([{ "path": "../x", "type": "a.Pooling" }]), cls(), none(), none(), "not the name of a folder"),
            (json!({}), cls(), none(), none(), "not a list of modules"),
        ] {
            let refusal = read(modules, pooling, transformer, model).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
