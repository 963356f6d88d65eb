//! `adapter_model.safetensors`: the pairs, checked against configuration and base.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};

use super::config::LoraConfig;
use super::targets::{Target, Targets};
use super::{AdapterError, Embeddings, HeadChanges, LoraPair, Matrix};
use crate::architecture::{Architecture, Name, Place};
use crate::classifier::Classifier;
use crate::safetensors_file::SafetensorsFile;

const PREFIX: &str = "base_model.model.";

/// The opened weight file.
#[derive(Debug)]
pub(super) struct Weights(Arc<SafetensorsFile>);

/// One pair for each adapted linear layer.
pub(super) type Pairs = BTreeMap<Place, LoraPair>;

/// Side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    A,
    B,
}

impl Weights {
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        Ok(Self(Arc::new(SafetensorsFile::open(path)?)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The pair of each target, and a warning if some have none: they stay as they are in the base, as in PEFT, where B
    /// is zero then. A tensor that belongs to no target is an error.
    pub(super) fn pairs(
        &self,
        targets: &Targets,
        base: &Architecture,
        embeddings: &Embeddings<'_>,
    ) -> Result<(Pairs, Option<String>), AdapterError> {
        let names = self.assign(targets, base, embeddings)?;
        let (mut pairs, mut absent) = (BTreeMap::new(), Vec::new());
        for (&place, Target { rank, scaling }) in targets {
            let (Some(linear), Some(linear_path)) = (base.linear(place), base.path(place)) else { continue };
            let has = |side| names.contains_key(&(place, side));
            if !names.is_empty() && !has(Side::A) && !has(Side::B) {
                absent.push(linear_path);
                continue;
            }
            let matrix = |side: Side, shape: [usize; 2]| {
                let letter = if side == Side::A { "A" } else { "B" };
                let name = names.get(&(place, side)).ok_or_else(|| AdapterError::MissingTensor {
                    path: self.0.path().to_owned(),
                    tensor: format!("{PREFIX}{linear_path}.lora_{letter}.weight"),
                })?;
                self.matrix(name, *rank, &shape)
            };
            let (a, b) = (matrix(Side::A, [*rank, linear.inputs])?, matrix(Side::B, [linear.outputs, *rank])?);
            pairs.insert(place, LoraPair { rank: *rank, scaling: *scaling, a, b });
        }
        let note = absent.first().map(|first| {
            let (path, count, all) = (self.0.path().display(), absent.len(), targets.len());
            format!("{path}: no weights for {count} of {all} modules that adapter_config.json targets ({first}, …): they stay as in the base")
        });
        Ok((pairs, note))
    }

    /// Whether a tensor is a mere copy of the base's embedding or head: the base's values, rounded to its own type.
    fn check_copy(&self, name: &str, of: &str, embeddings: &Embeddings<'_>) -> Result<(), String> {
        let remedy =
            "embedding and head of the base cannot be replaced: save the adapter with save_embedding_layers=False";
        let place = self.0.place(name).map_err(|error| error.to_string())?;
        let Some(base) = embeddings(of) else { return Err(remedy.to_owned()) };
        let shape = self.0.entry(name).map(|entry| entry.shape.as_slice()).unwrap_or_default();
        if shape != base.shape {
            let (rows, columns) = (base.shape[0], base.shape[1]);
            return Err(format!("it has shape {shape:?}, the base's own has {rows} by {columns}; {remedy}"));
        }
        let mut values = Vec::new();
        if let Some(place) = place {
            self.0.at(&place).append_to(&mut values);
        }
        let round: fn(f32) -> f32 = match self.0.dtype(name) {
            Some("F16") => |x| f16::from_f32(x).to_f32(),
            Some("BF16") => |x| bf16::from_f32(x).to_f32(),
            _ => |x| x,
        };
        let same = values.len() == base.data.len() && values.iter().zip(&base.data).all(|(x, own)| *x == round(*own));
        if same { Ok(()) } else { Err(format!("it is not the base's own; {remedy}")) }
    }

    /// Whether a tensor has no effect when it is added: PEFT begins with biases of zero (`lora_bias`).
    fn is_zero(&self, name: &str) -> bool {
        let mut values = Vec::new();
        if let Ok(Some(place)) = self.0.place(name) {
            self.0.at(&place).append_to(&mut values);
        }
        !values.is_empty() && values.iter().all(|value| *value == 0.0)
    }

    /// The tensors of each target.
    fn assign(
        &self,
        targets: &Targets,
        base: &Architecture,
        embeddings: &Embeddings<'_>,
    ) -> Result<BTreeMap<(Place, Side), &str>, AdapterError> {
        let places: BTreeMap<String, Place> =
            base.linears().filter_map(|(place, _)| Some((base.path(place)?, place))).collect();
        let mut names = BTreeMap::new();
        for name in self.0.names() {
            let refuse = |problem: String| AdapterError::UnexpectedTensor {
                path: self.0.path().to_owned(),
                tensor: name.to_owned(),
                problem,
            };
            if let Some(of) = copied(name, base) {
                self.check_copy(name, &of, embeddings).map_err(&refuse)?;
                continue;
            }
            if name.ends_with(".bias") && name.contains(".lora_B.") && self.is_zero(name) {
                continue;
            }
            if of_head(name, base) {
                continue;
            }
            let (path, side) = parse(name).map_err(&refuse)?;
            let Some(&place) = places.get(path) else { return Err(refuse(no_linear_layer(path, base))) };
            if !targets.contains_key(&place) {
                return Err(refuse("adapter_config.json does not target its module".to_owned()));
            }
            if let Some(other) = names.insert((place, side), name) {
                return Err(refuse(format!("`{other}` already stands for the same matrix")));
            }
        }
        Ok(names)
    }

    /// What is changed of `head`. A tensor of any other head is an error.
    pub(super) fn head(
        &self,
        config: &LoraConfig,
        base: &Architecture,
        head: Option<&Classifier>,
    ) -> Result<HeadChanges, AdapterError> {
        let mut changes = HeadChanges::default();
        for name in self.0.names().filter(|name| of_head(name, base)) {
            let refuse = |problem: String| AdapterError::UnexpectedTensor {
                path: self.0.path().to_owned(),
                tensor: name.to_owned(),
                problem,
            };
            let pair = parse(name);
            let Some(head) = head else {
                // Pairs of a pooler come with those of other modules of its name.
                if pair.is_ok() {
                    continue;
                }
                let remedy = "a model with spec.task Rerank or Classify takes it";
                return Err(refuse(format!("it belongs to a head, and the model makes vectors without one; {remedy}")));
            };
            let known = |module: &str| head.modules().iter().position(|own| own == module);
            let whole = name.strip_prefix(PREFIX).unwrap_or(name);
            if let Some((module, part)) = whole.rsplit_once('.')
                && let Some(layer) = known(module).map(|index| &head.layers[index])
            {
                let shape = if part == "weight" { vec![layer.outputs, layer.inputs] } else { vec![layer.outputs] };
                let found = self.0.entry(name).map(|entry| entry.shape.clone()).unwrap_or_default();
                if found != shape {
                    return Err(refuse(format!("it has shape {found:?}; the head of this model has {shape:?}")));
                }
                changes.saved.insert(whole.to_owned(), self.matrix(name, 0, &shape)?.values());
                continue;
            }
            let (module, _) = pair.map_err(&refuse)?;
            let Some(layer) = known(module).map(|index| &head.layers[index]) else {
                return Err(refuse(format!("the head of this model has {} alone", head.modules().join(", "))));
            };
            if changes.pairs.contains_key(module) {
                continue;
            }
            let Target { rank, scaling } = config.target(module)?;
            let matrix = |letter: &str, shape: [usize; 2]| {
                let wanted = |other: &&str| {
                    parse(other).is_ok_and(|(of, _)| of == module) && other.contains(&format!(".lora_{letter}"))
                };
                let tensor = || format!("{PREFIX}{module}.lora_{letter}.weight");
                let missing = || AdapterError::MissingTensor { path: self.0.path().to_owned(), tensor: tensor() };
                self.matrix(self.0.names().find(wanted).ok_or_else(missing)?, rank, &shape)
            };
            let (a, b) = (matrix("A", [rank, layer.inputs])?, matrix("B", [layer.outputs, rank])?);
            changes.pairs.insert(module.to_owned(), LoraPair { rank, scaling, a, b });
        }
        Ok(changes)
    }

    fn matrix(&self, name: &str, rank: usize, expected: &[usize]) -> Result<Matrix, AdapterError> {
        let path = || self.0.path().to_owned();
        let tensor = name.to_owned();
        let found = self.0.entry(name).map(|entry| entry.shape.clone()).unwrap_or_default();
        if found != expected {
            return Err(AdapterError::Shape { path: path(), tensor, rank, found, expected: expected.to_vec() });
        }
        let Some(place) = self.0.place(name)? else {
            return Err(AdapterError::MissingTensor { path: path(), tensor });
        };
        Matrix::new(Arc::clone(&self.0), place).map_err(|(index, value)| AdapterError::NotFinite {
            path: path(),
            tensor,
            value,
            index,
        })
    }
}

/// The base's tensor that a tensor would be a copy of: PEFT saves embedding and head too if the vocabulary was changed
/// (`save_embedding_layers`).
fn copied(name: &str, base: &Architecture) -> Option<String> {
    let name = name.strip_prefix(PREFIX)?;
    [&base.embedding, &base.head.name].into_iter().map(Name::weight).find(|copied| copied == name)
}

/// Whether a tensor belongs to a head on the encoder.
fn of_head(name: &str, base: &Architecture) -> bool {
    let module = name.strip_prefix(PREFIX).unwrap_or(name);
    base.encoder.as_ref().is_some_and(|encoder| encoder.is_unused(module))
}

/// Why an adapter of that path cannot be applied.
fn no_linear_layer(path: &str, base: &Architecture) -> String {
    let layers = base.layers.len();
    let layer = path.strip_prefix(&base.layers_begin).and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    match layer {
        Some(layer) if layer >= layers => {
            format!("this base model has {layers} layers: the adapter was made for another")
        }
        _ => format!("`{path}` is no projection that can be adapted"),
    }
}

/// Parses `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`, or `….lora_A.NAME.weight` of some tools.
fn parse(name: &str) -> Result<(&str, Side), String> {
    let known = "it is neither lora_A nor lora_B of a projection";
    if name.contains(".lora_magnitude_vector") {
        return Err("it belongs to DoRA (use_dora), which is not supported".to_owned());
    }
    if name.ends_with(".bias") {
        return Err("it is a bias, which cannot be applied: train the adapter with bias=\"none\" and lora_bias=False"
            .to_owned());
    }
    let path = name.strip_prefix(PREFIX).ok_or(known)?;
    let path = path.strip_suffix(".weight").ok_or(known)?;
    let (path, side) = if let Some((path, rest)) = path.rsplit_once(".lora_A") {
        (path, (Side::A, rest))
    } else if let Some((path, rest)) = path.rsplit_once(".lora_B") {
        (path, (Side::B, rest))
    } else {
        return Err(known.to_owned());
    };
    // The adapter's name may follow.
    let (side, rest) = side;
    if !rest.is_empty() && !rest.strip_prefix('.').is_some_and(|name| !name.is_empty() && !name.contains('.')) {
        return Err(known.to_owned());
    }
    Ok((path, side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_with_and_without_the_adapters_own() {
        let q = |tail: &str| {
            let name = format!("base_model.model.model.layers.12.self_attn.q_proj.{tail}");
            parse(&name).map(|(path, side)| (path.to_owned(), side))
        };
        let path = "model.layers.12.self_attn.q_proj".to_owned();
        assert_eq!(q("lora_A.weight"), Ok((path.clone(), Side::A)));
        assert_eq!(q("lora_B.default.weight"), Ok((path, Side::B)));
        assert!(q("lora_A.a.b.weight").is_err() && q("lora_AB.weight").is_err() && q("weight").is_err());
    }

    #[test]
    fn what_is_no_pair_of_a_projection_says_what_it_is() {
        let cases = [
            ("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector", "use_dora"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_B.bias", "bias"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", "neither"),
            ("model.layers.0.mlp.up_proj.lora_A.weight", "neither"),
        ];
        for (name, word) in cases {
            let problem = parse(name).unwrap_err();
            assert!(problem.contains(word), "{name}: {problem}");
        }
    }

    #[test]
    fn what_is_no_linear_layer_of_the_base_says_so() {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 256
        });
        let base = crate::families::from_hugging_face("config.json", config.as_object().unwrap()).unwrap();
        for (path, word) in [
            ("lm_head", "`lm_head` is no projection"),
            ("model.layers.0.mlp.router", "`model.layers.0.mlp.router` is no projection"),
            ("model.layers.2.mlp.up_proj", "has 2 layers"),
        ] {
            let problem = no_linear_layer(path, &base);
            assert!(problem.contains(word), "{path}: {problem}");
        }
    }
}
