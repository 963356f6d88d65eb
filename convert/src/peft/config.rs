//! `adapter_config.json`: PEFT's `LoraConfig`, and refusal of unsupported settings.

use std::path::Path;

use serde_json::{Map, Value};

use super::AdapterError;
use crate::architecture::Architecture;
use crate::fields::{self, Fields, shown};
use crate::pattern::{Budget, Pattern};

/// Defaults of `LoraConfig`.
const RANK_DEFAULT: usize = 8;
const ALPHA_DEFAULT: f64 = 8.0;
/// More than one pattern for each projection of the deepest model.
const PATTERNS_MAX: usize = 8192;

/// Keys without influence on the result of a trained adapter.
const HARMLESS: [&str; 20] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    // Describes the weight layout of other kinds of layers; PEFT ignores it on linear layers.
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    // Without biases in the file, PEFT initialises them to zero.
    "lora_bias",
    "lora_dropout",
    "lora_dtype",
    "lora_ga_config",
    // Learning rates of ms-swift.
    "lorap_emb_lr",
    "lorap_lr_ratio",
    "megatron_core",
    // Whether early versions of PEFT merged the weights for inference.
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];
/// Keys that are evaluated below.
const READ: [&str; 12] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];
/// Keys of which only the default is supported, with the reason. Unknown keys are treated likewise.
const REFUSED: [(&str, &str); 14] = [
    ("alora_invocation_tokens", "an activated LoRA applies from its invocation tokens on; only plain LoRA is served"),
    ("arrow_config", "Arrow routes between adapters inside of the model; only plain LoRA is served"),
    ("ensure_weight_tying", "it adapts embedding and head together; only the layers' projections can be adapted"),
    ("kasa_config", "KaSA changes the base model's weights; only plain LoRA is served"),
    ("layer_replication", "it changes the base model's layers"),
    ("megatron_config", "Megatron's parallel layers are not served"),
    ("modules_to_save", "whole modules cannot be replaced; train the adapter without modules_to_save"),
    ("monteclora_config", "MonteCLoRA samples its weights; only plain LoRA is served"),
    ("target_parameters", "only the projections that target_modules can name can be adapted"),
    ("trainable_token_indices", "token embeddings cannot be replaced; train the adapter without them"),
    ("use_bdlora", "block-diagonal LoRA is not served; only plain LoRA is"),
    ("use_dora", "DoRA is not supported; train the adapter with use_dora=False"),
    ("use_qalora", "QALoRA pools its inputs; only plain LoRA is served"),
    ("velora_config", "VeLoRA is not served; only plain LoRA is"),
];
/// Initialisations that leave the base's weights unchanged.
const INITS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// A supported configuration.
#[derive(Debug)]
pub(super) struct LoraConfig {
    pub(super) file: String,
    /// Time budget of its regular expressions.
    pub(super) budget: Budget,
    pub(super) rank: usize,
    pub(super) alpha: f64,
    pub(super) use_rslora: bool,
    /// In the order of the file: the first match counts.
    pub(super) rank_pattern: Vec<(Pattern, usize)>,
    pub(super) alpha_pattern: Vec<(Pattern, f64)>,
    pub(super) targets: Selection,
    pub(super) exclude: Option<Selection>,
    pub(super) layers: Option<Layers>,
}

/// Selection of modules.
#[derive(Debug)]
pub(super) enum Selection {
    /// Every linear layer except the head.
    AllLinear,
    /// Modules whose whole name matches.
    Pattern(Pattern),
    /// Modules with that name, or with that name after a dot at the end.
    Names(Vec<String>),
}

/// `layers_to_transform` with `layers_pattern`.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) indices: Vec<usize>,
    /// Expressions that find the layer index as group `idx`; the first match counts.
    pub(super) patterns: Vec<Pattern>,
}

impl LoraConfig {
    /// Reads the configuration of an adapter on `base`. Modules that it saves whole are heads of encoders; what they are is seen with
    /// the weights.
    pub(super) fn parse(path: &Path, bytes: &[u8], base: &Architecture) -> Result<Self, AdapterError> {
        let file = path.display().to_string();
        let map: Map<String, Value> = fields::parse(bytes)
            .map_err(|error| AdapterError::Json { file: file.clone(), problem: error.to_string() })?;
        let fields = Fields::new(&file, &map);
        let also: &[&str] = if base.encoder.is_some() { &["modules_to_save"] } else { &[] };
        refuse_unsupported(&fields, also)?;

        let rank = fields.opt_size("r")?.unwrap_or(RANK_DEFAULT);
        if rank == 0 {
            return Err(fields.wrong("r", "a rank of at least 1").into());
        }
        let alpha = fields.opt_number("lora_alpha")?.unwrap_or(ALPHA_DEFAULT);
        let budget = Budget::new();
        let rank_pattern = patterns(&fields, budget, "rank_pattern", "ranks of at least 1", |value| {
            value.as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|rank| *rank > 0)
        })?;
        let alpha_pattern = patterns(&fields, budget, "alpha_pattern", "numbers", Value::as_f64)?;
        let targets = selection(&fields, budget, "target_modules")?.unwrap_or_else(default_targets);
        let layers = layers(&fields, budget, &targets)?;
        let exclude = selection(&fields, budget, "exclude_modules")?;
        let use_rslora = fields.opt_flag("use_rslora")?.unwrap_or(false);
        Ok(Self { budget, rank, alpha, use_rslora, rank_pattern, alpha_pattern, targets, exclude, layers, file })
    }
}

/// PEFT's default targets for these families (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`).
fn default_targets() -> Selection {
    Selection::Names(["q_proj", "v_proj"].map(str::to_owned).into())
}

/// Refuses, by name, any setting that would change the result, but for those in `also`.
fn refuse_unsupported(fields: &Fields<'_>, also: &[&str]) -> Result<(), AdapterError> {
    let refuse = |key: &str, why: &str| AdapterError::Unsupported {
        file: fields.file().to_owned(),
        field: key.to_owned(),
        found: fields.get(key).map_or_else(|| "null".to_owned(), shown),
        why: why.to_owned(),
    };
    match fields.opt_text("peft_type")? {
        Some("LORA") => {}
        Some(_) => return Err(refuse("peft_type", "only LORA adapters can be loaded")),
        None => return Err(fields.missing("peft_type").into()),
    }
    // With a base without biases the adapter has none either, whatever the setting; biases in the file are refused with
    // the weights.
    let known = ["none", "all", "lora_only"];
    let bias = |bias: &Value| *bias == false || bias.as_str().is_some_and(|bias| known.contains(&bias));
    if !fields.get("bias").is_none_or(bias) {
        return Err(refuse("bias", "PEFT has none, all and lora_only"));
    }
    let init_is_plain = match fields.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => true,
        Some(init) => init.as_str().is_some_and(|init| INITS.contains(&init.to_lowercase().as_str())),
    };
    if !init_is_plain {
        let why = "this initialisation changes the base model's weights; save the adapter with \
                   path_initial_model_for_weight_conversion, which makes a plain LoRA of it";
        return Err(refuse("init_lora_weights", why));
    }
    for key in fields.keys() {
        let known = HARMLESS.contains(&key) || READ.contains(&key) || also.contains(&key);
        if known || !fields.get(key).is_some_and(is_set) {
            continue;
        }
        let why = REFUSED.iter().find(|(name, _)| *name == key).map_or(
            "this setting is not known here, and ignoring it could change what the adapter computes",
            |(_, why)| why,
        );
        return Err(refuse(key, why));
    }
    Ok(())
}

/// Whether a value means more than "not used".
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) => true,
    }
}

/// A map from expressions to values. PEFT matches them as `(.*\.)?(KEY)$` from the start of a module's name.
fn patterns<T>(
    fields: &Fields<'_>,
    budget: Budget,
    key: &str,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Pattern, T)>, AdapterError> {
    let Some(value) = fields.get(key).filter(|value| is_set(value)) else { return Ok(Vec::new()) };
    let Some(map) = value.as_object() else {
        return Err(fields.wrong(key, &format!("an object from module names to {expected}")).into());
    };
    if map.len() > PATTERNS_MAX {
        return Err(fields.wrong(key, &format!("at most {PATTERNS_MAX} patterns")).into());
    }
    map.iter()
        .map(|(pattern, value)| {
            let value = read(value).ok_or_else(|| fields.wrong(key, &format!("module names with {expected}")))?;
            Ok((compiled(fields, budget, key, pattern, &format!(r"\A(?:.*\.)?(?:{pattern})\z"))?, value))
        })
        .collect()
}

fn selection(fields: &Fields<'_>, budget: Budget, key: &str) -> Result<Option<Selection>, AdapterError> {
    let expected = "a list of module names, a regular expression, or \"all-linear\"";
    match fields.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if key == "target_modules" && text.eq_ignore_ascii_case("all-linear") => {
            Ok(Some(Selection::AllLinear))
        }
        // PEFT treats an empty exclude_modules as none.
        Some(Value::String(text)) if text.is_empty() && key == "exclude_modules" => Ok(None),
        Some(Value::String(text)) => compiled(fields, budget, key, text, &format!(r"\A(?:{text})\z"))
            .map(|pattern| Some(Selection::Pattern(pattern))),
        Some(Value::Array(values)) if values.len() <= PATTERNS_MAX => {
            let names: Option<Vec<String>> = values.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            Ok(Some(Selection::Names(names.ok_or_else(|| fields.wrong(key, expected))?)))
        }
        Some(_) => Err(fields.wrong(key, expected).into()),
    }
}

fn layers(fields: &Fields<'_>, budget: Budget, targets: &Selection) -> Result<Option<Layers>, AdapterError> {
    let expected = "a layer index or a list of them";
    let indices = match fields.get("layers_to_transform") {
        None => Vec::new(),
        Some(Value::Array(values)) => values
            .iter()
            .map(Value::as_u64)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| fields.wrong("layers_to_transform", expected))?,
        Some(value) => vec![value.as_u64().ok_or_else(|| fields.wrong("layers_to_transform", expected))?],
    };
    let names = match fields.get("layers_pattern") {
        None => Vec::new(),
        Some(Value::String(name)) if name.is_empty() => Vec::new(),
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(values)) => values
            .iter()
            .map(Value::as_str)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| fields.wrong("layers_pattern", "a name or a list of names"))?,
        Some(_) => return Err(fields.wrong("layers_pattern", "a name or a list of names").into()),
    };
    if indices.is_empty() {
        return match names.first() {
            None => Ok(None),
            Some(_) => Err(fields.wrong("layers_pattern", "null, as layers_to_transform is not set").into()),
        };
    }
    if !matches!(targets, Selection::Names(_)) {
        return Err(fields.wrong("layers_to_transform", "null, as target_modules is not a list").into());
    }
    // Without a name, the first number between dots counts.
    let expressions = if names.is_empty() {
        vec![r"\A.*?\.[^.]*\.(?P<idx>\d+)\.".to_owned()]
    } else {
        names.iter().map(|name| format!(r"\A(?:|.*?\.)(?:{name})\.(?P<idx>\d+)\.")).collect()
    };
    let patterns = expressions
        .iter()
        .map(|expression| compiled(fields, budget, "layers_pattern", expression, expression))
        .collect::<Result<_, _>>()?;
    let indices = indices.into_iter().filter_map(|index| usize::try_from(index).ok()).collect();
    Ok(Some(Layers { indices, patterns }))
}

fn compiled(
    fields: &Fields<'_>,
    budget: Budget,
    key: &str,
    pattern: &str,
    expression: &str,
) -> Result<Pattern, AdapterError> {
    Pattern::new(expression, budget).map_err(|error| AdapterError::Pattern {
        file: fields.file().to_owned(),
        field: key.to_owned(),
        pattern: pattern.to_owned(),
        problem: error.to_string(),
    })
}
