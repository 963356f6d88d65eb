//! Heads of sequence classifiers (`…ForSequenceClassification`): from the states of a text's tokens to a score for each label.
//!
//! A cross-encoder that reranks is one with a single label. transformers gives each family a head of its own; all of them are a
//! pooling and dense layers.

use std::path::Path;

use serde_json::{Map, Value};

use crate::architecture::Architecture;
use crate::checkpoint::{CheckpointError, Tensor};
use crate::config_error::ConfigError;
use crate::dense::{Dense, DenseActivation, DenseNorm};
use crate::embedding::Pooling;
use crate::fields::Fields;
use crate::peft::HeadChanges;

const HEAD: &str = "ForSequenceClassification";
/// No real model comes near.
const LABELS_MAX: usize = 1 << 16;

/// The head of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// One row of those of all tokens.
    pub pooling: Pooling,
    /// Layers over that row; the last one has an output for each label.
    pub layers: Vec<Dense>,
    /// What outputs become.
    pub scores: Scores,
    /// Names of labels, in the order of outputs; empty for a head that reranks.
    pub labels: Vec<String>,
    /// Modules of the layers in the checkpoint.
    modules: Vec<String>,
}

/// What outputs become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// The outputs themselves.
    Identity,
    /// `1 / (1 + exp(-x))` of each.
    Sigmoid,
    /// Exponentials, divided by their sum.
    Softmax,
}

/// A layer of a head: module, activation, and the module of a norm with its epsilon.
struct Part {
    module: String,
    activation: DenseActivation,
    norm: Option<(String, f32)>,
}

/// What is read for a head.
pub(crate) struct Source<'a> {
    /// The file of `config`.
    pub(crate) file: &'a Path,
    pub(crate) config: &'a Map<String, Value>,
    pub(crate) architecture: &'a Architecture,
    /// The tensors of the checkpoint.
    pub(crate) tensor: &'a dyn Fn(&str) -> Result<Tensor, CheckpointError>,
}

impl Classifier {
    /// The head of a model that scores pairs of a query and a document.
    pub(crate) fn reranker(source: &Source<'_>) -> Result<Self, CheckpointError> {
        let fields = source.fields();
        let scores = activation_of_scores(&fields)?;
        let head = source.head(scores)?;
        if head.outputs() != 1 {
            let remedy = "a model that reranks has one: set spec.task to Classify, or choose another model";
            return Err(source.wrong(format!("the model has {} labels; {remedy}", head.outputs())));
        }
        Ok(head)
    }

    /// The head of a model that gives texts labels.
    pub(crate) fn labeller(source: &Source<'_>) -> Result<Self, CheckpointError> {
        let head = source.head(Scores::Identity)?;
        let fields = source.fields();
        let labels = labels(&fields, head.outputs())?;
        let scores = match fields.opt_text("problem_type")? {
            Some("regression") => Scores::Identity,
            Some("multi_label_classification") => Scores::Sigmoid,
            Some("single_label_classification") => Scores::Softmax,
            Some(_) => {
                let known = "regression, single_label_classification, multi_label_classification";
                return Err(fields.unsupported("problem_type", known).into());
            }
            None if labels.len() == 1 => Scores::Sigmoid,
            None => Scores::Softmax,
        };
        Ok(Self { labels, scores, ..head })
    }

    /// Number of labels.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs)
    }

    /// Modules of its layers, by their names in the checkpoint.
    #[must_use]
    pub fn modules(&self) -> &[String] {
        &self.modules
    }

    /// The head with the changes of an adapter, whose pairs are multiplied by `scale` beside their own scaling.
    #[must_use]
    pub fn changed(&self, changes: &HeadChanges, scale: f32) -> Self {
        let mut changed = self.clone();
        for (layer, module) in changed.layers.iter_mut().zip(&self.modules) {
            if let Some(weight) = changes.saved.get(&format!("{module}.weight")) {
                layer.weight.clone_from(weight);
            }
            if let Some(bias) = changes.saved.get(&format!("{module}.bias")) {
                layer.bias.clone_from(bias);
            }
            let Some(pair) = changes.pairs.get(module) else { continue };
            let (a, b, scaling) = (pair.a.values(), pair.b.values(), pair.scaling * scale);
            for (row, b) in layer.weight.chunks_exact_mut(layer.inputs).zip(b.chunks_exact(pair.rank)) {
                for (a, b) in a.chunks_exact(layer.inputs).zip(b) {
                    row.iter_mut().zip(a).for_each(|(x, a)| *x += scaling * b * a);
                }
            }
        }
        changed
    }
}

impl Source<'_> {
    fn fields(&self) -> Fields<'_> {
        Fields::new(&self.file.display().to_string(), self.config)
    }

    fn wrong(&self, problem: String) -> CheckpointError {
        CheckpointError::Head { path: self.file.to_owned(), problem }
    }

    fn head(&self, scores: Scores) -> Result<Classifier, CheckpointError> {
        let fields = self.fields();
        let kinds = fields.opt_texts("architectures")?.unwrap_or_default();
        if !kinds.iter().any(|kind| kind.ends_with(HEAD)) {
            let found = if kinds.is_empty() { "empty".to_owned() } else { kinds.join(", ") };
            let needed = format!("spec.task Rerank and Classify need a checkpoint of …{HEAD}");
            return Err(self.wrong(format!("`architectures` is {found}, which has no head for labels; {needed}")));
        }
        let (pooling, parts) = parts(&fields, self.architecture)?;
        let mut layers = Vec::with_capacity(parts.len());
        let mut width = self.architecture.hidden_size;
        for Part { module, activation, norm } in &parts {
            let wrong = |problem: String| self.wrong(format!("head `{module}`: {problem}"));
            // Whether a head has biases is a setting of some families only.
            let optional = |name: String| (self.tensor)(&name).ok();
            let weight = (self.tensor)(&format!("{module}.weight"))?;
            let bias = optional(format!("{module}.bias"));
            let mut layer = Dense::new(width, weight, bias, *activation).map_err(wrong)?;
            if let Some((norm, epsilon)) = norm {
                let gain = (self.tensor)(&format!("{norm}.weight"))?.data;
                let bias = optional(format!("{norm}.bias")).map_or_else(|| vec![0.0; gain.len()], |bias| bias.data);
                if [gain.len(), bias.len()] != [layer.outputs; 2] {
                    return Err(wrong(format!("its norm has {} gains for {} numbers", gain.len(), layer.outputs)));
                }
                layer.norm = Some(DenseNorm { gain, bias, epsilon: *epsilon });
            }
            width = layer.outputs;
            layers.push(layer);
        }
        if width > LABELS_MAX {
            return Err(self.wrong(format!("the model has {width} labels; the limit is {LABELS_MAX}")));
        }
        let modules = parts.into_iter().map(|part| part.module).collect();
        Ok(Classifier { pooling, layers, scores, labels: Vec::new(), modules })
    }
}

/// Pooling and layers of a family's head, as transformers has them.
fn parts(fields: &Fields<'_>, architecture: &Architecture) -> Result<(Pooling, Vec<Part>), ConfigError> {
    let part = |module: &str, activation| Part { module: module.to_owned(), activation, norm: None };
    let (tanh, relu, plain) = (DenseActivation::Tanh, DenseActivation::Relu, DenseActivation::Identity);
    Ok(match architecture.family.as_str() {
        "bert" => {
            let name = &architecture.embedding.hf;
            let begin = name.strip_suffix("embeddings.word_embeddings").unwrap_or_default();
            (Pooling::First, vec![part(&format!("{begin}pooler.dense"), tanh), part("classifier", plain)])
        }
        "roberta" | "xlm-roberta" | "camembert" | "mpnet" => {
            (Pooling::First, vec![part("classifier.dense", tanh), part("classifier.out_proj", plain)])
        }
        "distilbert" => (Pooling::First, vec![part("pre_classifier", relu), part("classifier", plain)]),
        "modernbert" => {
            let pooling = match fields.opt_text("classifier_pooling")? {
                None | Some("cls") => Pooling::First,
                Some("mean") => Pooling::Mean,
                Some(_) => return Err(fields.unsupported("classifier_pooling", "cls, mean")),
            };
            let name = fields.opt_text("classifier_activation")?.unwrap_or("gelu");
            let activation = DenseActivation::of_name(name);
            let activation = activation.map_err(|known| fields.unsupported("classifier_activation", &known))?;
            let epsilon = fields.opt_number("norm_eps")?.unwrap_or(1e-5) as f32;
            let dense = Part { norm: Some(("head.norm".to_owned(), epsilon)), ..part("head.dense", activation) };
            (pooling, vec![dense, part("classifier", plain)])
        }
        _ => {
            let known =
                "bert, roberta, xlm-roberta, camembert, distilbert, mpnet and modernbert for Rerank and Classify";
            return Err(fields.unsupported("model_type", known));
        }
    })
}

/// What sentence-transformers makes of the one output of a cross-encoder, by the setting that it writes into config.json.
fn activation_of_scores(fields: &Fields<'_>) -> Result<Scores, ConfigError> {
    let newer = fields.opt_object("sentence_transformers")?;
    let (within, key) = match &newer {
        Some(newer) if newer.get("activation_fn").is_some() => (newer, "activation_fn"),
        _ => (fields, "sbert_ce_default_activation_function"),
    };
    let Some(class) = within.opt_text(key)? else { return Ok(Scores::Sigmoid) };
    match DenseActivation::of_class(class) {
        Ok(DenseActivation::Sigmoid) => Ok(Scores::Sigmoid),
        Ok(DenseActivation::Identity) => Ok(Scores::Identity),
        _ => Err(within.unsupported(key, "torch.nn.Sigmoid, torch.nn.Identity")),
    }
}

/// Names of the labels, in the order of outputs.
fn labels(fields: &Fields<'_>, outputs: usize) -> Result<Vec<String>, CheckpointError> {
    let expected = format!("a name for each of the model's {outputs} labels, from \"0\" on");
    let Some(map) = fields.get("id2label") else {
        let problem = format!("field `id2label` is missing; spec.task Classify needs {expected}");
        return Err(CheckpointError::Head { path: fields.file().into(), problem });
    };
    let map = map.as_object().filter(|map| map.len() == outputs);
    let name = |index: usize| map?.get(&index.to_string())?.as_str().map(str::to_owned);
    let names: Option<Vec<_>> = (0..outputs).map(name).collect();
    names.ok_or_else(|| fields.wrong("id2label", &expected).into())
}

#[cfg(test)]
mod tests;
