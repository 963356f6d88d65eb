//! How a vector is made of the states of a text's tokens: pooling, dense layers and normalisation, as sentence-transformers writes
//! them beside a model.
//!
//! `modules.json` lists modules in the order of their work, each with a folder for its own `config.json`. A module, or a setting,
//! that would change a vector and is not known here is refused by name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::checkpoint::{CheckpointError, Tensor};
use crate::dense::{Dense, DenseActivation};
use crate::safetensors_file::SafetensorsFile;
use crate::{fields, listing, mapped};

const MODULES: &str = "modules.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const MODEL: &str = "config_sentence_transformers.json";
/// No real model has more.
const MODULES_MAX: usize = 16;

/// How vectors are made of states.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingSettings {
    /// One vector of those of all tokens.
    pub pooling: Pooling,
    /// Layers over that vector.
    pub layers: Vec<Dense>,
    /// Whether vectors have a length of one.
    pub normalize: bool,
    /// Bound on the tokens of a text; `None` for that of the model.
    pub tokens_max: Option<usize>,
    /// Put before each text.
    pub prompt: String,
}

/// One vector of those of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        Self { pooling: Pooling::Mean, layers: Vec::new(), normalize: false, tokens_max: None, prompt: String::new() }
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
            // Its weights are a part of the model's digest, too.
            add(path, files, &weights(&module), bytes_max)?;
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

fn weights(module: &Module) -> String {
    format!("{}/model.safetensors", module.path)
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

/// The settings in `files` of the folder `path`, of a model whose states have `width` numbers.
pub(crate) fn settings(path: &Path, files: &Files, width: usize) -> Result<EmbeddingSettings, CheckpointError> {
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
            "Dense" if !pooled || settings.normalize => {
                let problem = "a Dense module is supported between Pooling and Normalize only";
                return Err(wrong(MODULES, problem.to_owned()));
            }
            "Dense" => {
                let file = config(&module);
                let width = settings.layers.last().map_or(width, |layer| layer.outputs);
                let layer = dense(&path.join(weights(&module)), &json(&file)?, width);
                settings.layers.push(layer.map_err(|problem| wrong(&file, problem))?);
            }
            "Normalize" => settings.normalize = true,
            other => {
                let known = "Transformer, Pooling, Dense and Normalize are supported";
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

/// Refuses a prompt before each text, in `files` of the folder `path`: what has a head takes texts as they are.
pub(crate) fn refuse_prompt(path: &Path, files: &Files) -> Result<(), CheckpointError> {
    let Some(bytes) = files.get(MODEL) else { return Ok(()) };
    let file = path.join(MODEL);
    let config = fields::parse(bytes)
        .map_err(|error| CheckpointError::Json { path: file.clone(), problem: error.to_string() })?;
    match config.get("default_prompt_name").filter(|name| !name.is_null()) {
        None => Ok(()),
        Some(name) => {
            let name = fields::shown(name);
            let problem = format!("`default_prompt_name` is {name}, which is supported for spec.task Embed only");
            Err(CheckpointError::Embedding { path: file, problem })
        }
    }
}

/// The layer of a Dense module, whose input has `width` numbers.
fn dense(path: &Path, config: &Map<String, Value>, width: usize) -> Result<Dense, String> {
    for key in ["module_input_name", "module_output_name"] {
        if config.get(key).is_some_and(|name| !name.is_null() && *name != "sentence_embedding") {
            return Err(format!("`{key}` is {}; supported: sentence_embedding", fields::shown(&config[key])));
        }
    }
    let class = config.get("activation_function").and_then(Value::as_str);
    let class = class.ok_or("field `activation_function` is missing")?;
    let activation = DenseActivation::of_class(class)
        .map_err(|known| format!("`activation_function` is {class:?}, which is not supported; supported: {known}"))?;
    if let Some(problem) = listing::obstacle(path) {
        return Err(format!("{}: {problem}", path.display()));
    }
    if !path.is_file() {
        let remedy = "save the model with a newer sentence-transformers, which writes safetensors";
        return Err(format!("its weights are not in {}: {remedy}", path.display()));
    }
    let file = SafetensorsFile::open(path).map_err(|error| error.to_string())?;
    let tensor = |name: &str| {
        let Some(entry) = file.entry(name) else { return Ok(None) };
        let data = file.values(name).map_err(|error| error.to_string())?;
        Ok::<_, String>(data.map(|data| Tensor { shape: entry.shape.clone(), data }))
    };
    let weight = tensor("linear.weight")?.ok_or_else(|| format!("{}: no linear.weight", path.display()))?;
    Dense::new(width, weight, tensor("linear.bias")?, activation)
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
mod tests;
