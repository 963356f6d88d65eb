//! `SwarmRoute`: a name for callers, with rules that choose an expert for each request.

// Printer columns repeat their keys, which clippy takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::{collections::BTreeMap, fmt, str::FromStr};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ensemble::{Ensemble, Shadow},
    retrieve::Retrieve,
    status::{self, Condition},
    validation,
};

/// SwarmRouteSpec describes how a request is routed to an expert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validation::route()))]
#[kube(
    group = "slmswarm.io",
    version = "v1alpha1",
    kind = "SwarmRoute",
    plural = "swarmroutes",
    shortname = "sroute",
    category = "slmswarm",
    namespaced,
    status = "SwarmRouteStatus",
    derive = "PartialEq",
    doc = "A name that callers use: rules that choose an expert for each request, and a fallback.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Fallback", type_ = "string", json_path = ".spec.fallback.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SwarmRouteSpec {
    /// Description is one sentence for people who choose a model. Listed by ListModels and /v1/models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Rules are evaluated in order. The first rule that is true and whose target is loaded on a worker selects the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub rules: Vec<RouteRule>,
    /// Classifier selects the target of the text's label, when no rule is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Classifier>,
    /// Similarity selects the target whose examples are most like the text, when no rule is true and the classifier, if there is one,
    /// does not accept the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<Similarity>,
    /// OutOfScope is what happens to a request that no target of `classifier` or `similarity` is for. The fallback answers it if this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_scope: Option<OutOfScope>,
    /// Cascade asks a larger target when the answer of the selected one is not confident enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Cascade>,
    /// Ensemble asks several experts at once, when nothing selects a target, and gives one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// Shadow sends copies of requests to a candidate, and counts how often it agrees with the answers that are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Retrieve puts passages of an index into a conversation before its expert is asked, and cites them in the answer's metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieve: Option<Retrieve>,
    /// DataPolicy says what may leave the swarm. LocalOnly (the default): no target outside of the swarm is asked. Redacted: an
    /// ExternalModel may be asked, with placeholders instead of personal data and secrets. AllowExternal: an ExternalModel may be asked.
    /// A router, a caller's token and a request can be stricter, never laxer.
    #[serde(default, skip_serializing_if = "DataPolicy::is_default")]
    pub data_policy: DataPolicy,
    /// OnError is what happens to a request when a rule fails on it, when its label or similarity cannot be computed, or when too few experts
    /// of the ensemble answer. Fallback (the default): a rule that fails is not true, a classifier that fails is passed over, and the
    /// fallback answers when nothing else decides. Reject: the request is refused.
    #[serde(default, skip_serializing_if = "OnError::is_default")]
    pub on_error: OnError,
    /// Fallback is the target when nothing selects one.
    pub fallback: Target,
}

/// RouteRule selects a target when an expression is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// When is a CEL expression over `text`, `messages`, `metadata` and `model` that yields a boolean, such as
    /// `text.matches("(?i)\\b(flight|hotel)\\b")`.
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = validation::not_blank()))]
    pub when: String,
    /// To is the target when the expression is true.
    pub to: Target,
}

/// Classifier asks a model for the label of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Classifier {
    /// Model is what labels texts: a LoraAdapter with a head, as `slm route train` writes it, on a SlmModel with `task: Embed`; or a
    /// SlmModel with `task: Classify`, or a LoraAdapter on one.
    pub model: Target,
    /// Targets among which one is selected.
    #[schemars(length(min = 1, max = 256))]
    pub targets: Vec<Target>,
    /// Labels name the target of a label. A label that is not listed belongs to the expert that the head names, or else to the target of
    /// the label's own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 4096))]
    pub labels: BTreeMap<String, String>,
    /// FalseRejections is the share of texts in scope that may be taken for out of scope, by the texts that were held out when the head
    /// was trained. Another share of the same size may be unsure.
    #[serde(default = "false_rejections", skip_serializing_if = "is_false_rejections")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_rejections: f64,
    /// Thresholds of the probability of the most probable target, for a model with `task: Classify`, which has no other measure of scope:
    /// without them everything is in scope. A head does not take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
}

/// Similarity compares the text of a request with examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Similarity {
    /// Encoder is the SlmModel with `task: Embed`, or the LoraAdapter on one, that makes vectors of texts.
    pub encoder: Target,
    /// Targets among which one is selected. Each needs `spec.expert.examples`.
    #[schemars(length(min = 1, max = 256))]
    pub targets: Vec<Target>,
    /// FalseRejections is the share of the examples that may be taken for out of scope. Thresholds are computed from it: of each
    /// example, its similarity to the others of its target.
    #[serde(default = "false_rejections", skip_serializing_if = "is_false_rejections")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_rejections: f64,
    /// Thresholds are used instead of computed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
}

pub(crate) fn false_rejections() -> f64 {
    0.02
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::float_cmp)] // As serde calls it.
fn is_false_rejections(share: &f64) -> bool {
    *share == false_rejections()
}

/// Thresholds of a score: of a similarity, which is a cosine, or of a probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validation::thresholds()))]
pub struct Thresholds {
    /// Accept is the score from which the target with the highest score is selected.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub accept: f64,
    /// OutOfScope is the score below which a request is out of scope. Between the two it is unsure: the target with the highest score is
    /// selected, and the decision says so.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub out_of_scope: f64,
}

/// OutOfScope is what happens to a request that no target is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validation::out_of_scope()))]
pub struct OutOfScope {
    /// To is the target that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Target>,
    /// Message is the answer, word for word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = validation::not_blank()))]
    pub message: Option<String>,
    /// Reject is the message of the error with which the request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = validation::not_blank()))]
    pub reject: Option<String>,
}

/// Cascade asks larger targets for what smaller ones do not answer with confidence. An answer is judged as a whole, before its first
/// byte leaves: a caller sees one answer of one expert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cascade {
    /// Targets from small to large. The one that the route selected is asked first; then those after it in this list, or all of them if
    /// it is not listed.
    #[schemars(length(min = 1, max = 8))]
    pub targets: Vec<Target>,
    /// Confidence that an answer needs.
    pub confidence: Confidence,
    /// Budget of escalations, for each router.
    #[serde(default, skip_serializing_if = "EscalationBudget::is_default")]
    pub budget: EscalationBudget,
}

/// Confidence of an answer: from the probabilities of its tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Confidence {
    /// Measure of confidence. Mean (the default): the geometric mean of the tokens' probabilities. Least: the lowest of them.
    #[serde(default)]
    pub measure: Measure,
    /// Accept is the confidence from which an answer is given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub accept: f64,
}

/// Measure of confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Measure {
    #[default]
    Mean,
    Least,
}

/// EscalationBudget bounds how often larger targets are asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EscalationBudget {
    /// Share of the last 256 answers of the route that may be escalated. Unset: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: Option<f64>,
    /// PerMinute is the number of escalations a minute. Unset: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_minute: Option<u32>,
    /// Spent is what happens to an answer that is not confident enough when the budget is spent. Answer (the default): it is given. Reject:
    /// the request is refused, and may be tried again later.
    #[serde(default)]
    pub spent: BudgetSpent,
}

/// BudgetSpent is what happens when a budget of escalations is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum BudgetSpent {
    #[default]
    Answer,
    Reject,
}

impl EscalationBudget {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// DataPolicy is what may leave the swarm. Ordered: a stricter policy is less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum DataPolicy {
    #[default]
    LocalOnly,
    Redacted,
    AllowExternal,
}

impl DataPolicy {
    /// Every policy, the strictest first.
    pub const ALL: [Self; 3] = [Self::LocalOnly, Self::Redacted, Self::AllowExternal];

    #[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for DataPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalOnly => "LocalOnly",
            Self::Redacted => "Redacted",
            Self::AllowExternal => "AllowExternal",
        })
    }
}

/// A word that is no data policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no data policy: there are LocalOnly, Redacted and AllowExternal")]
pub struct UnknownDataPolicy(String);

impl FromStr for DataPolicy {
    type Err = UnknownDataPolicy;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|policy| policy.to_string() == word);
        known.ok_or_else(|| UnknownDataPolicy(word.chars().take(40).collect()))
    }
}

/// OnError is what a failure to choose a target means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum OnError {
    #[default]
    Fallback,
    Reject,
}

impl OnError {
    #[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl SwarmRouteSpec {
    /// A route that always leads to the same target.
    #[must_use]
    pub fn to(fallback: Target) -> Self {
        Self {
            description: None,
            rules: Vec::new(),
            classifier: None,
            similarity: None,
            out_of_scope: None,
            cascade: None,
            ensemble: None,
            shadow: None,
            retrieve: None,
            data_policy: DataPolicy::default(),
            on_error: OnError::default(),
            fallback,
        }
    }

    /// Every object that the route refers to, and where: first what reads texts, then what is asked, the fallback last.
    pub fn references(&self) -> impl Iterator<Item = (Place, &Target)> {
        let classifier = self.classifier.iter().map(|classifier| (Place::Classifier, &classifier.model));
        let encoder = self.similarity.iter().map(|similarity| (Place::Encoder, &similarity.encoder));
        let retriever = self.retrieve.iter().map(|retrieve| (Place::Retriever, &retrieve.encoder));
        let rules = self.rules.iter().enumerate().map(|(index, rule)| (Place::Rule(index), &rule.to));
        let labelled = self.classifier.iter().flat_map(|classifier| classifier.targets.iter().enumerate());
        let labelled = labelled.map(|(index, target)| (Place::Labelled(index), target));
        let similar = self.similarity.iter().flat_map(|similarity| similarity.targets.iter().enumerate());
        let similar = similar.map(|(index, target)| (Place::Similar(index), target));
        let out = self.out_of_scope.iter().filter_map(|out| Some((Place::OutOfScope, out.to.as_ref()?)));
        let larger = self.cascade.iter().flat_map(|cascade| cascade.targets.iter().enumerate());
        let larger = larger.map(|(index, target)| (Place::Cascade(index), target));
        let together = self.ensemble.iter().flat_map(Ensemble::references);
        let shadow = self.shadow.iter().map(|shadow| (Place::Shadow, &shadow.to));
        let selected = rules.chain(labelled).chain(similar).chain(out).chain(larger).chain(together).chain(shadow);
        classifier.chain(encoder).chain(retriever).chain(selected).chain([(Place::Fallback, &self.fallback)])
    }
}

/// The field of a route that refers to an object. Shown as its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// What labels texts.
    Classifier,
    /// What makes vectors.
    Encoder,
    /// What makes vectors of what passages are retrieved for.
    Retriever,
    /// The target of a rule.
    Rule(usize),
    /// A target of the classifier.
    Labelled(usize),
    /// A target of the similarity.
    Similar(usize),
    /// The target of what is out of scope.
    OutOfScope,
    /// A target of the cascade.
    Cascade(usize),
    /// An expert of the ensemble.
    Expert(usize),
    /// The judge of the ensemble.
    Judge,
    /// The candidate that gets copies.
    Shadow,
    /// The fallback.
    Fallback,
}

impl Place {
    /// Whether what stands there may answer requests.
    #[must_use]
    pub fn answers(self) -> bool {
        self.is_asked() && !matches!(self, Self::Judge | Self::Shadow)
    }

    /// Whether what stands there gets texts of requests to answer, or to judge.
    pub(crate) fn is_asked(self) -> bool {
        !matches!(self, Self::Classifier | Self::Encoder | Self::Retriever)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classifier => f.write_str("spec.classifier.model"),
            Self::Encoder => f.write_str("spec.similarity.encoder"),
            Self::Retriever => f.write_str("spec.retrieve.encoder"),
            Self::Rule(index) => write!(f, "spec.rules[{index}].to"),
            Self::Labelled(index) => write!(f, "spec.classifier.targets[{index}]"),
            Self::Similar(index) => write!(f, "spec.similarity.targets[{index}]"),
            Self::OutOfScope => f.write_str("spec.outOfScope.to"),
            Self::Cascade(index) => write!(f, "spec.cascade.targets[{index}]"),
            Self::Expert(index) => write!(f, "spec.ensemble.experts[{index}]"),
            Self::Judge => f.write_str("spec.ensemble.judge"),
            Self::Shadow => f.write_str("spec.shadow.to"),
            Self::Fallback => f.write_str("spec.fallback"),
        }
    }
}

/// Target refers to a SlmModel, a LoraAdapter or an ExternalModel in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Kind is SlmModel, LoraAdapter or ExternalModel.
    pub kind: TargetKind,
    /// Name of the target.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub name: String,
}

/// TargetKind is the kind of a target. A route cannot target a route, so routes have no loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum TargetKind {
    SlmModel,
    LoraAdapter,
    ExternalModel,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlmModel => "SlmModel",
            Self::LoraAdapter => "LoraAdapter",
            Self::ExternalModel => "ExternalModel",
        })
    }
}

/// SwarmRouteStatus is the observed state of a SwarmRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SwarmRouteStatus {
    /// ObservedGeneration is the generation that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the SwarmRoute: Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}
