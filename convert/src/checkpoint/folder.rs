//! A Hugging Face folder: config.json, safetensors in one file or in shards, tokenizer files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::names::{self, Expected};
use super::{CheckpointError, Tensor};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::generation::GenerationDefaults;
use crate::safetensors_file::SafetensorsFile;
use crate::{families, mapped, tokenizer};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Side files that say something about the model; all that are there count towards its digest.
const SIDE_FILES: [&str; 7] = [
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    INDEX,
];
/// tokenizer.json of a vocabulary of 256 Ki tokens has some 35 MB.
const SIDE_FILE_BYTES_MAX: u64 = 128 << 20;
const SHARDS_MAX: usize = 1024;

/// An opened folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    config: ModelConfig,
    generation: GenerationDefaults,
    /// Small files by name, as read.
    side: BTreeMap<String, Vec<u8>>,
    /// Safetensors files by name.
    shards: BTreeMap<String, SafetensorsFile>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut side = BTreeMap::new();
        for name in SIDE_FILES.into_iter().chain([CONFIG]) {
            let file = path.join(name);
            if file.is_file() {
                let bytes = mapped::read(&file, SIDE_FILE_BYTES_MAX)
                    .map_err(|source| CheckpointError::Io { path: file, source })?;
                side.insert(name.to_owned(), bytes);
            }
        }
        let config_path = path.join(CONFIG);
        let config_json = side_json(path, &side, CONFIG)?.ok_or_else(|| no_model(path, "config.json is not there"))?;
        let config = families::from_hugging_face(&config_path.display().to_string(), &config_json)?;

        let mut generation = GenerationDefaults::default();
        for name in ["generation_config.json", CONFIG] {
            if let Some(map) = side_json(path, &side, name)? {
                generation.merge(&path.join(name).display().to_string(), &map, config.vocab_size)?;
            }
        }
        let mut shards = BTreeMap::new();
        for name in shard_names(path, &side)? {
            let shard = SafetensorsFile::open(&path.join(&name))?;
            shards.insert(name, shard);
        }
        let folder = Self { path: path.to_owned(), config, generation, side, shards };
        folder.check_tensors()?;
        Ok(folder)
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        for shard in self.shards.values() {
            if let (Some(entry), Some(data)) = (shard.entry(name), shard.values(name)?) {
                return Ok(Tensor { shape: entry.shape.clone(), data });
            }
        }
        Err(self.missing(name))
    }

    pub(super) fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, CheckpointError> {
        let name = "tokenizer.json";
        let Some(bytes) = self.side.get(name) else { return Ok(None) };
        Ok(Some(tokenizer::from_json(&self.path.join(name), bytes)?))
    }

    pub(super) fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        let json = |name: &str| Ok::<_, CheckpointError>(side_json(&self.path, &self.side, name)?.unwrap_or_default());
        let settings = json("tokenizer_config.json")?;
        let special = json("special_tokens_map.json")?;
        let token =
            |key: &str| settings.get(key).and_then(token_text).or_else(|| special.get(key).and_then(token_text));

        let (name, source) = if let Some(bytes) = self.side.get("chat_template.jinja") {
            ("chat_template.jinja", Some(String::from_utf8_lossy(bytes).into_owned()))
        } else if let Some(source) = json("chat_template.json")?.get("chat_template").and_then(template_text) {
            ("chat_template.json", Some(source))
        } else {
            ("tokenizer_config.json", settings.get("chat_template").and_then(template_text))
        };
        let Some(source) = source else { return Ok(None) };
        let file = self.path.join(name).display().to_string();
        Ok(Some(ChatTemplate::new(&file, source, token("bos_token"), token("eos_token"))?))
    }

    /// Everything the model is read from, by name, in sorted order.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let side = self.side.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let shards = self.shards.iter().map(|(name, shard)| (name.as_str(), shard.bytes()));
        let all: BTreeMap<&str, &[u8]> = side.chain(shards).collect();
        all.into_iter()
    }

    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let expected = names::expected(&self.config);
        for Expected { name, shape, .. } in &expected {
            let holder = self.shards.values().find_map(|shard| Some((shard, shard.entry(name)?)));
            let (shard, entry) = holder.ok_or_else(|| self.missing(name))?;
            shard.check_dtype(name)?;
            if entry.shape != *shape {
                return Err(CheckpointError::Shape {
                    path: shard.path().to_owned(),
                    tensor: name.clone(),
                    found: entry.shape.clone(),
                    expected: shape.clone(),
                });
            }
        }
        let known: BTreeSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut held = BTreeMap::new();
        for shard in self.shards.values() {
            for name in shard.names() {
                if !known.contains(name) && !names::is_redundant(name, &self.config) {
                    return Err(CheckpointError::UnexpectedTensor {
                        path: shard.path().to_owned(),
                        tensor: name.to_owned(),
                        family: format!("{:?}", self.config.family),
                    });
                }
                if let Some(other) = held.insert(name, shard.path()) {
                    let problem = format!("tensor `{name}` stands in {} and in a second shard", other.display());
                    return Err(CheckpointError::Index { path: shard.path().to_owned(), problem });
                }
            }
        }
        Ok(())
    }

    fn missing(&self, tensor: &str) -> CheckpointError {
        CheckpointError::MissingTensor { path: self.path.clone(), tensor: tensor.to_owned() }
    }
}

/// `model.safetensors`, or the shards that the index names.
fn shard_names(path: &Path, side: &BTreeMap<String, Vec<u8>>) -> Result<BTreeSet<String>, CheckpointError> {
    if path.join(WEIGHTS).is_file() {
        return Ok(BTreeSet::from([WEIGHTS.to_owned()]));
    }
    let Some(index) = side_json(path, side, INDEX)? else {
        return Err(no_model(path, "config.json is there, its weights are not (weights in .bin are not read)"));
    };
    let bad = |problem: String| CheckpointError::Index { path: path.join(INDEX), problem };
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("field `weight_map` is missing; fetch the file again".to_owned()))?;
    let mut shards = BTreeSet::new();
    for (tensor, file) in map {
        // A shard lies beside its index; a name that leads elsewhere is not followed.
        let name = file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|last| last == *name));
        let name = name.ok_or_else(|| bad(format!("tensor `{tensor}` is said to be in {file}: not a file name")))?;
        shards.insert(name.to_owned());
    }
    if shards.len() > SHARDS_MAX {
        return Err(bad(format!("it names {} shards; the limit is {SHARDS_MAX}", shards.len())));
    }
    match shards.iter().find(|name| !path.join(name).is_file()) {
        Some(name) => Err(bad(format!("shard `{name}` is not in the folder; fetch the model again"))),
        None => Ok(shards),
    }
}

fn side_json(
    path: &Path,
    side: &BTreeMap<String, Vec<u8>>,
    name: &str,
) -> Result<Option<Map<String, Value>>, CheckpointError> {
    let Some(bytes) = side.get(name) else { return Ok(None) };
    serde_json::from_slice(bytes)
        .map(Some)
        .map_err(|error| CheckpointError::Json { path: path.join(name), problem: error.to_string() })
}

/// A special token is a string, or an object with one.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// A template is a string, or a list of named ones of which `default` is meant.
fn template_text(value: &Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"))?;
        default.get("template")?.as_str().map(str::to_owned)
    };
    value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named))
}

fn no_model(path: &Path, found: &str) -> CheckpointError {
    CheckpointError::NoModel { path: path.to_owned(), found: found.to_owned() }
}
