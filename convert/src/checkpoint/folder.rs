//! Hugging Face folders: config.json, safetensors in one file or in shards, tokenizer files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::quantized::{self, PackedWeight, Quantized};
use super::shards::Shards;
use super::{CheckpointError, Tensor, gguf_file, lookalike};
use crate::architecture::{Architecture, TensorSpec, Transform};
use crate::chat::ChatTemplate;
use crate::chat_files::{self, ChatFiles};
use crate::classifier::{self, Classifier};
use crate::embedding::{self, EmbeddingSettings};
use crate::fields;
use crate::generation::{EndCandidates, GenerationDefaults, add_ends, well_known_in};
use crate::listing;
use crate::{families, mapped, tokenizer};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const INDEX: &str = "model.safetensors.index.json";
/// Optional files that describe the model; all that are present count towards its digest.
const SIDE_FILES: [&str; 8] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    TOKENIZER,
    "tokenizer_config.json",
    INDEX,
];
/// The tokenizer.json of a vocabulary of 256 Ki tokens has about 35 MB.
const SIDE_FILE_BYTES_MAX: u64 = 128 << 20;
const SHARDS_MAX: usize = 1024;
/// Bound on warnings of one kind.
const NOTES_MAX: usize = 4;

/// An opened folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    architecture: Architecture,
    /// Tensors of the architecture by name.
    tensors: BTreeMap<String, TensorSpec>,
    generation: GenerationDefaults,
    /// Contents of small files by name.
    side: BTreeMap<String, Vec<u8>>,
    shards: Shards,
    quantized: Quantized,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut side = BTreeMap::new();
        for name in SIDE_FILES.into_iter().chain(quantized::FILES.map(|(name, _)| name)).chain([CONFIG]) {
            let file = path.join(name);
            if let Some(problem) = listing::obstacle(&file) {
                return Err(CheckpointError::NotAFile { path: file, problem });
            }
            if file.is_file() {
                let bytes = mapped::read(&file, SIDE_FILE_BYTES_MAX)
                    .map_err(|source| CheckpointError::Io { path: file, source })?;
                side.insert(name.to_owned(), bytes);
            }
        }
        embedding::read_files(path, &mut side, SIDE_FILE_BYTES_MAX)?;
        let config_path = path.join(CONFIG);
        let config_json = side_json(path, &side, CONFIG)?.ok_or_else(|| no_model(path))?;
        if let Some(error) = config_json.get("error").filter(|_| !config_json.contains_key("hidden_size")) {
            let problem = format!(
                "this is the answer of a server, {}, not the file itself: download the file again",
                fields::shown(error)
            );
            return Err(CheckpointError::NotAFile { path: config_path, problem });
        }
        let mut architecture = families::from_hugging_face(&config_path.display().to_string(), &config_json)?;

        let mut generation = GenerationDefaults::default();
        for name in ["generation_config.json", CONFIG] {
            if let Some(map) = side_json(path, &side, name)? {
                generation.merge(&path.join(name).display().to_string(), &map, architecture.vocab_size);
            }
        }
        if let Some(found) = lookalike::other_tokenizer(path).filter(|_| !side.contains_key(TOKENIZER)) {
            // A pointer is named as one.
            let file = path.join(found);
            mapped::read(&file, SIDE_FILE_BYTES_MAX).map_err(|source| CheckpointError::Io { path: file, source })?;
            return Err(CheckpointError::NoTokenizer { path: path.to_owned(), found });
        }
        let shards = Shards::open(path, shard_names(path, &side)?)?;
        architecture.take_names(|name| shards.holder(name).is_some());
        let tensors = architecture.tensors().into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let quantized = Quantized::read(path, |name| side_json(path, &side, name), &architecture, &tensors, &shards)?;
        let mut folder = Self { path: path.to_owned(), architecture, tensors, generation, side, shards, quantized };
        folder.check_tensors()?;
        folder.find_ends()?;
        Ok(folder)
    }

    /// Adds the end tokens of the tokenizer's files and of the template.
    fn find_ends(&mut self) -> Result<(), CheckpointError> {
        let files = self.chat_files()?;
        let mut notes: Vec<String> =
            files.notes.iter().map(|note| format!("{}: {note}", self.path.display())).collect();
        let template = files.template(None).ok().flatten();
        let problem = template.as_ref().and_then(ChatTemplate::problem);
        notes.extend(problem.map(|problem| format!("{}: {problem}", self.path.display())));
        let Some(bytes) = self.side.get(TOKENIZER) else {
            self.generation.notes.extend(notes);
            return Ok(());
        };
        let vocab_size = self.architecture.vocab_size;
        let declared = self.declared(&files)?;
        let mut added = tokenizer::added_in_json(&self.path.join(TOKENIZER), bytes)?;
        added.retain(|(text, _)| !text.is_empty());
        // The whole vocabulary is read only if something is not in the list of added tokens.
        let known: BTreeSet<&str> = added.iter().map(|(text, _)| text.as_str()).collect();
        let texts = declared.iter().map(tokenizer::Declared::text).chain(files.eos_token());
        let unknown: Vec<&str> = texts.filter(|text| !known.contains(text)).collect();
        let in_model = match unknown.as_slice() {
            [] => BTreeMap::new(),
            unknown => tokenizer::ids_in_model(bytes, unknown.iter().copied()),
        };
        let eos_in_model = files.eos_token().and_then(|eos| in_model.get(eos)).copied();
        let ids = tokenizer::with_declared(added, &declared, |text| in_model.get(text).copied());
        for problem in declared.iter().filter_map(|token| token.problem(&ids, vocab_size)).take(NOTES_MAX) {
            notes.push(format!("{}: tokenizer_config.json: {problem}", self.path.display()));
        }
        let named = files.eos_token().map(|eos| (eos, ids.get(eos).copied().or(eos_in_model)));
        match named {
            Some((eos, Some(id))) if (id as usize) < vocab_size => {
                self.generation.add_end(id, eos, "eos_token of tokenizer_config.json");
            }
            Some((eos, _)) => notes.push(format!(
                "{}: eos_token {eos:?} of tokenizer_config.json is no token of this model; it is ignored",
                self.path.display()
            )),
            None => {}
        }
        let candidates = EndCandidates { added: ids, lookalikes: BTreeMap::new() };
        add_ends(&mut self.generation, &candidates, template.as_ref(), vocab_size);
        self.generation.notes.extend(notes);
        Ok(())
    }

    /// The tokens that other files declare beside `tokenizer.json`.
    fn declared(&self, files: &ChatFiles) -> Result<Vec<tokenizer::Declared>, CheckpointError> {
        let json = |name: &str| Ok::<_, CheckpointError>(side_json(&self.path, &self.side, name)?.unwrap_or_default());
        let template = files.template(None).ok().flatten();
        let ends = well_known_in(template.as_ref().map_or("", ChatTemplate::written));
        let named = files.texts().map(str::to_owned).chain(ends.map(str::to_owned)).collect();
        Ok(tokenizer::declared(&json("tokenizer_config.json")?, &json("added_tokens.json")?, &named))
    }

    fn chat_files(&self) -> Result<ChatFiles, CheckpointError> {
        let json = |name: &str| Ok::<_, CheckpointError>(side_json(&self.path, &self.side, name)?.unwrap_or_default());
        Ok(chat_files::read(
            &json("tokenizer_config.json")?,
            &json("special_tokens_map.json")?,
            &json("chat_template.json")?,
            self.side.get("chat_template.jinja").map(Vec::as_slice),
        ))
    }

    /// Warnings for the load of the model.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.generation.notes.clone();
        notes.extend(self.quantized.notes.iter().cloned());
        let shown = self.path.display();
        if !self.side.contains_key(TOKENIZER) {
            notes.push(format!("{shown}: tokenizer.json is missing: requests have to send token ids"));
        }
        if let Some(gguf) = gguf_file::beside(&self.path).unwrap_or_default().first() {
            let gguf = gguf.file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("{shown}: the safetensors are served; for {gguf} beside them, name that file"));
        }
        notes
    }

    pub(super) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    pub(super) fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let expected = self.tensors.get(name);
        if let (Some(weight), Some(expected)) = (self.packed(name), expected) {
            return Ok(Tensor { shape: expected.shape.clone(), data: weight.values() });
        }
        let Some(shard) = self.shards.holder(name) else {
            return self.of_stack(name)?.ok_or_else(|| self.missing(name));
        };
        let (Some(entry), Some(mut data)) = (shard.entry(name), shard.values(name)?) else {
            return Err(self.missing(name));
        };
        if expected.is_some_and(|tensor| tensor.transform == Transform::AddOne) {
            data.iter_mut().for_each(|value| *value += 1.0);
        }
        Ok(Tensor { shape: entry.shape.clone(), data })
    }

    /// The matrix of an expert, if those of all experts are one tensor.
    fn of_stack(&self, name: &str) -> Result<Option<Tensor>, CheckpointError> {
        let Some(TensorSpec { shape, stack: Some(stack), .. }) = self.tensors.get(name) else { return Ok(None) };
        let Some(shard) = self.shards.holder(&stack.name) else { return Ok(None) };
        let [_, outputs, inputs] = stack.shape;
        let begin = (stack.expert * outputs + stack.output) * inputs;
        let data = shard.some_values(&stack.name, begin..begin + shape.iter().product::<usize>())?;
        Ok(data.map(|data| Tensor { shape: shape.clone(), data }))
    }

    /// A quantised weight.
    pub(super) fn packed(&self, name: &str) -> Option<&dyn PackedWeight> {
        self.quantized.weights.get(name).map(Box::as_ref)
    }

    pub(super) fn type_name(&self, name: &str) -> Option<String> {
        let dtype = |name: &str| self.shards.holder(name).and_then(|shard| shard.dtype(name)).map(str::to_owned);
        let stacked = || dtype(&self.tensors.get(name)?.stack.as_ref()?.name);
        dtype(name).or_else(stacked).or_else(|| Some(format!("{}-bit", self.packed(name)?.bits())))
    }

    pub(super) fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, CheckpointError> {
        let Some(bytes) = self.side.get(TOKENIZER) else { return Ok(None) };
        let mut tokenizer = tokenizer::from_json(&self.path.join(TOKENIZER), bytes)?;
        tokenizer::add_declared(&mut tokenizer, &self.declared(&self.chat_files()?)?, self.architecture.vocab_size);
        Ok(Some(tokenizer))
    }

    pub(super) fn embedding(&self) -> Result<EmbeddingSettings, CheckpointError> {
        embedding::settings(&self.path, &self.side, self.architecture.hidden_size)
    }

    /// The head that `read` makes of the checkpoint.
    pub(super) fn head(
        &self,
        read: fn(&classifier::Source<'_>) -> Result<Classifier, CheckpointError>,
    ) -> Result<Classifier, CheckpointError> {
        embedding::refuse_prompt(&self.path, &self.side)?;
        let config = side_json(&self.path, &self.side, CONFIG)?.unwrap_or_default();
        let file = self.path.join(CONFIG);
        let tensor = |name: &str| self.tensor(name);
        read(&classifier::Source { file: &file, config: &config, architecture: &self.architecture, tensor: &tensor })
    }

    pub(super) fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        let files = self.chat_files()?;
        files.template(None).map_err(|source| CheckpointError::Chat { path: self.path.join(files.file), source })
    }

    /// Every file that the model is read from, sorted by name.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let side = self.side.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let all: BTreeMap<&str, &[u8]> = side.chain(self.shards.files()).collect();
        all.into_iter()
    }

    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let mut stacks = BTreeSet::new();
        let holder = |name: &str| self.shards.holder(name).and_then(|shard| Some((shard, shard.entry(name)?)));
        for TensorSpec { name, shape, stack, .. } in self.tensors.values() {
            if self.packed(name).is_some() {
                continue;
            }
            let (name, shape, (shard, entry)) = match (holder(name), stack) {
                (Some(found), _) => (name, &shape[..], found),
                (None, Some(stack)) => {
                    let found = holder(&stack.name).ok_or_else(|| self.missing(name))?;
                    stacks.insert(stack.name.as_str());
                    (&stack.name, &stack.shape[..], found)
                }
                (None, None) => return Err(self.missing(name)),
            };
            shard.check_dtype(name)?;
            if entry.shape != *shape {
                return Err(CheckpointError::Shape {
                    path: shard.path().to_owned(),
                    tensor: name.clone(),
                    found: entry.shape.clone(),
                    expected: shape.to_vec(),
                });
            }
        }
        let mut held = BTreeMap::new();
        for shard in self.shards.iter() {
            for name in shard.names() {
                let known =
                    self.tensors.contains_key(name) || stacks.contains(name) || self.quantized.parts.contains(name);
                if !known && !self.architecture.is_redundant(name) {
                    return Err(CheckpointError::UnexpectedTensor {
                        path: shard.path().to_owned(),
                        tensor: name.to_owned(),
                        family: self.architecture.family.clone(),
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

/// Names of `model.safetensors`, or of the shards in the index.
fn shard_names(path: &Path, side: &BTreeMap<String, Vec<u8>>) -> Result<BTreeSet<String>, CheckpointError> {
    if let Some(problem) = listing::obstacle(&path.join(WEIGHTS)) {
        return Err(CheckpointError::NotAFile { path: path.join(WEIGHTS), problem });
    }
    if path.join(WEIGHTS).is_file() {
        return Ok(BTreeSet::from([WEIGHTS.to_owned()]));
    }
    let Some(index) = side_json(path, side, INDEX)? else {
        return Err(no_model(path));
    };
    let bad = |problem: String| CheckpointError::Index { path: path.join(INDEX), problem };
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("field `weight_map` is missing; fetch the file again".to_owned()))?;
    let mut shards = BTreeSet::new();
    for (tensor, file) in map {
        // A shard must be beside its index; a path elsewhere is refused.
        let name = file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|last| last == *name));
        let name =
            name.ok_or_else(|| bad(format!("tensor `{tensor}` is listed in {file}, which is not a file name")))?;
        shards.insert(name.to_owned());
    }
    if shards.len() > SHARDS_MAX {
        return Err(bad(format!("it names {} shards; the limit is {SHARDS_MAX}", shards.len())));
    }
    match shards.iter().find(|name| !path.join(name).is_file()) {
        Some(name) => Err(match listing::obstacle(&path.join(name)) {
            Some(problem) => CheckpointError::NotAFile { path: path.join(name), problem },
            None => bad(format!("shard `{name}` is not in the folder; fetch the model again")),
        }),
        None => Ok(shards),
    }
}

fn side_json(
    path: &Path,
    side: &BTreeMap<String, Vec<u8>>,
    name: &str,
) -> Result<Option<Map<String, Value>>, CheckpointError> {
    let Some(bytes) = side.get(name) else { return Ok(None) };
    fields::parse(bytes)
        .map(Some)
        .map_err(|error| CheckpointError::Json { path: path.join(name), problem: error.to_string() })
}

fn no_model(path: &Path) -> CheckpointError {
    CheckpointError::NoModel { path: path.to_owned(), found: lookalike::folder(path) }
}
