//! Architectures: a transformer, decoder or encoder, as data.
//!
//! A family's reader (`families`) describes a model once, with the names of its tensors. Everything else reads the
//! description: checks of checkpoints, the graph, and the targets of adapters. So a new family is one reader, unless it
//! computes something that no [`Layer`] can say.

mod check;
mod encoder;
mod prefix;
mod states;
mod tensors;

use serde::{Deserialize, Serialize};

pub(crate) use check::LAYERS_MAX;
pub use encoder::{Encoder, RelativeBias, Rows};
pub use states::{DeltaRule, ShortConvolution};
pub(crate) use tensors::{Stack, TensorSpec, Transform};

use crate::rope::Rope;

/// A decoder-only transformer: embedding, layers, norm and head. Or an encoder, whose [`Encoder`] says what is different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Family: `model_type` of config.json, or `general.architecture` of GGUF metadata.
    pub family: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Trained context length in positions.
    pub context_length: usize,
    /// Begin of the Hugging Face names of all layers, such as `model.layers.`.
    #[serde(default = "decoder_layers", skip_serializing_if = "is_decoder_layers")]
    pub layers_begin: String,
    /// Embedding table.
    pub embedding: Name,
    /// Factor of embedded tokens.
    pub embedding_scale: f32,
    /// Inputs of their own that layers take besides the residual stream (per-layer inputs).
    pub layer_inputs: Option<LayerInputs>,
    /// Rotary position embeddings; [`Attention::rope`] is an index.
    pub ropes: Vec<Rope>,
    /// Decoder layers.
    pub layers: Vec<Layer>,
    /// Norm after the layers, before the head.
    pub final_norm: Option<Norm>,
    /// Head, from the residual stream to logits. That of an encoder is tied, and not used.
    pub head: Head,
    /// What an encoder has besides; `None` for a decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Encoder>,
}

/// Inputs of their own of all layers, each of a few floats: `scale * (embedding_scale * E[token] + norm(projection_scale *
/// P x))` for embedded tokens `x`, with the norm of each layer's part by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerInputs {
    /// Floats of a layer's input.
    pub size: usize,
    /// Embedding table, with the inputs of all layers side by side.
    pub embedding: Name,
    /// Factor of its rows.
    pub embedding_scale: f32,
    /// Projection to the inputs of all layers. Its name is that in the model, not in a layer.
    pub projection: Linear,
    /// Factor of its result.
    pub projection_scale: f32,
    /// Norm of each layer's part of that.
    pub norm: Norm,
    /// Factor of the sum.
    pub scale: f32,
}

/// What a layer does with its own input `v`, after its other blocks: `x += norm(projection(activation(gate(x)) * v))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerInput {
    /// From the residual stream to the size of the input.
    pub gate: Linear,
    /// Activation of the gate.
    pub activation: Activation,
    /// Back to the residual stream.
    pub projection: Linear,
    /// Norm of the result.
    pub norm: Norm,
}

/// Head of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Its tensors.
    pub name: Name,
    /// Whether its weights are those of the embedding (`tie_word_embeddings`).
    pub tied: bool,
    /// Whether it has a bias.
    pub bias: bool,
    /// Factor of logits.
    pub scale: f32,
    /// Soft cap: logits become `cap * tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
}

/// Decoder layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Token mixer.
    #[serde(flatten)]
    pub mixer: Mixer,
    /// Feed-forward block.
    pub feed_forward: FeedForward,
    /// Norms, and the order of the two blocks.
    pub residual: Residual,
    /// Factor of each block's result before it is added to the residual stream.
    pub residual_scale: f32,
    /// Use of the layer's own input.
    pub input: Option<LayerInput>,
    /// Tensor with one number by which the residual stream is multiplied after the layer. Its names have no `.weight`
    /// added.
    pub output_scale: Option<Name>,
}

/// Token mixer: the block of a layer that sees earlier tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixer {
    /// Attention to keys and values of earlier tokens.
    Attention(Attention),
    /// Gated convolution over the last few tokens.
    ShortConvolution(ShortConvolution),
    /// Linear attention with a state that each token corrects (gated delta net).
    DeltaRule(DeltaRule),
}

/// How the two blocks of a layer add to the residual stream `x`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Residual {
    /// `x += post(attention(pre(x)))`, then `x += post(feed_forward(pre(x)))`.
    Sequential {
        /// Norms of the token mixer.
        attention: BlockNorms,
        /// Norms of the feed-forward block.
        feed_forward: BlockNorms,
    },
    /// `x += attention(norm(x)) + feed_forward(norm(x))`.
    Parallel {
        /// Norm of both blocks.
        norm: Norm,
    },
    /// `x = norm(x + attention(x))`, then `x = norm(x + feed_forward(x))`: the stream itself is normed.
    Normed {
        /// Norm after the token mixer.
        attention: Norm,
        /// Norm after the feed-forward block.
        feed_forward: Norm,
    },
}

/// Norms before and after a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockNorms {
    /// Norm of the block's input.
    pub pre: Option<Norm>,
    /// Norm of the block's result.
    pub post: Option<Norm>,
}

/// Norm with its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// Tensor of gains.
    pub name: Name,
    /// Kind.
    pub kind: NormKind,
    /// Epsilon under the root.
    pub epsilon: f32,
    /// Whether Hugging Face checkpoints store gains minus one.
    pub minus_one: bool,
}

/// Kind of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + epsilon) * gain`.
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + epsilon) * gain`, plus a bias.
    Layer {
        /// Whether there is a bias.
        bias: bool,
    },
}

/// Name of a tensor, without `.weight` or `.bias`. Within a layer, it is relative to [`Architecture::layer_prefix`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Name in a Hugging Face checkpoint, such as `self_attn.q_proj`.
    pub hf: String,
    /// Name in a GGUF file, such as `attn_q`.
    pub gguf: String,
}

/// Attention block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; not always `hidden_size / heads`.
    pub head_dim: usize,
    /// Factor of scores.
    pub scale: f32,
    /// Soft cap: scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Sliding window: number of positions that a token attends to, itself included, to each side in an encoder; `None` for
    /// all.
    pub window: Option<usize>,
    /// Index in [`Architecture::ropes`]; `None` for no rotation.
    pub rope: Option<usize>,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Source of keys and values.
    pub kv: KeyValues,
    /// Epsilon of an RMS norm, without gains, of the values of each head; `None` for no norm.
    pub value_norm: Option<f32>,
    /// Whether the first linear layer gives a gate beside each query head, `[heads, query or gate, head_dim]`: the sigmoids of
    /// the gates multiply the result.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gated: bool,
    /// Linear layers whose outputs, side by side, are queries, keys and values, as far as [`Attention::kv`] has them.
    pub qkv: Vec<Linear>,
    /// Output projection.
    pub output: Linear,
}

/// Where most decoders have their layers.
pub(crate) const DECODER_LAYERS: &str = "model.layers.";

fn decoder_layers() -> String {
    DECODER_LAYERS.to_owned()
}

fn is_decoder_layers(begin: &str) -> bool {
    begin == DECODER_LAYERS
}

/// Flags that are not set are left out: descriptions of models without them stay as they were.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes references.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Source of a layer's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyValues {
    /// Linear layers for both.
    Own,
    /// A linear layer for keys, whose outputs, before norm and rotation, are the values, too.
    KeysAsValues,
    /// None: the layer of this index, an earlier one with heads of the same shape, has them.
    OfLayer(usize),
}

/// Norms of queries and of keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QkNorm {
    /// Norm of queries.
    pub q: Norm,
    /// Norm of keys; unused where they are those of another layer.
    pub k: Norm,
    /// What is normed at once.
    pub span: QkSpan,
    /// Whether norms follow the rotation, instead of going before it.
    pub after_rope: bool,
}

/// What a norm of queries or keys takes the mean of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QkSpan {
    /// Each head.
    Head,
    /// All heads of a token.
    Token,
}

/// Feed-forward block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedForward {
    /// Width between the two projections; of each expert, if there are experts.
    pub size: usize,
    /// Activation.
    pub activation: Activation,
    /// Whether the activation of one half of the first projection multiplies the other half.
    pub gated: bool,
    /// Linear layers whose outputs, side by side, are gates and values, or values alone.
    pub up: Vec<Linear>,
    /// Output projection.
    pub down: Linear,
    /// Experts, each a block of this shape; then names of the linear layers are relative to [`Experts::prefix`].
    pub experts: Option<Experts>,
}

/// Experts of a feed-forward block (mixture of experts): a router chooses some of them for each token, and their results
/// are added, each times its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experts {
    /// Number of experts.
    pub count: usize,
    /// Experts of a token.
    pub used: usize,
    /// Whether the weights of a token's experts are divided by their sum. A weight is the softmax of the scores of all
    /// experts.
    pub normalized: bool,
    /// Matrix of the router, from the block's input to a score for each expert.
    pub router: Name,
    /// Prefix of the names of one expert's linear layers, such as `mlp.experts`.
    pub prefix: String,
}

/// Activation of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)` by its tanh approximation.
    GeluTanh,
    /// `x * Phi(x)`.
    Gelu,
    /// `max(x, 0)^2`.
    ReluSquared,
}

/// Linear layer `y = W x + b`, which an adapter can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Name within its layer.
    pub name: Name,
    /// Input columns.
    pub inputs: usize,
    /// Output rows.
    pub outputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// Heads whose rows GGUF stores with the two halves of a rotation side by side.
    pub gguf_pairs: Option<usize>,
}

/// Place of a linear layer in a model: the layer, and its index among the linear layers of that. The layer after the last
/// one has those that belong to no layer: [`LayerInputs::projection`].
pub type Place = (usize, usize);

impl Architecture {
    /// Prefix of names in layer `layer`.
    #[must_use]
    pub fn layer_prefix(&self, layer: usize) -> Name {
        Name { hf: format!("{}{layer}.", self.layers_begin), gguf: format!("blk.{layer}.") }
    }

    /// Prefix of names at places of `layer`, which may be the one after the last.
    #[must_use]
    pub fn prefix(&self, layer: usize) -> Name {
        if layer < self.layers.len() { self.layer_prefix(layer) } else { Name::new("", "") }
    }

    /// The linear layer at `place`.
    #[must_use]
    pub fn linear(&self, place: Place) -> Option<&Linear> {
        self.linears_of(place.0).nth(place.1)
    }

    /// Hugging Face name of the linear layer at `place`, without `.weight`.
    #[must_use]
    pub fn path(&self, place: Place) -> Option<String> {
        Some(self.linear(place)?.name.within(&self.prefix(place.0)).hf)
    }

    /// All linear layers that an adapter can change, in the order of computation.
    pub fn linears(&self) -> impl Iterator<Item = (Place, &Linear)> {
        let layers = std::iter::once(self.layers.len()).chain(0..self.layers.len());
        layers.flat_map(|layer| self.linears_of(layer).enumerate().map(move |(index, linear)| ((layer, index), linear)))
    }

    /// Linear layers of a fused projection, in the order of their columns.
    #[must_use]
    pub fn fused(&self, layer: usize, projection: Projection) -> &[Linear] {
        match (self.layers.get(layer), &self.layer_inputs) {
            (Some(layer), _) => layer.fused(projection),
            (None, Some(inputs)) if projection == Projection::LayerInputs => std::slice::from_ref(&inputs.projection),
            (None, _) => &[],
        }
    }

    /// Index at places of `layer` of the first linear layer of `projection`.
    #[must_use]
    pub fn first(&self, layer: usize, projection: Projection) -> usize {
        let before = Projection::ALL.into_iter().take_while(|other| *other != projection);
        before.map(|other| self.fused(layer, other).len()).sum()
    }

    /// All fused projections with their layers, by [`Projection::index`]; some have no linear layer.
    pub fn projections(&self) -> impl Iterator<Item = (usize, Projection)> + use<> {
        let layers = self.layers.len() + usize::from(self.layer_inputs.is_some());
        (0..layers).flat_map(|layer| Projection::ALL.into_iter().map(move |projection| (layer, projection)))
    }

    fn linears_of(&self, layer: usize) -> impl Iterator<Item = &Linear> {
        Projection::ALL.into_iter().flat_map(move |projection| self.fused(layer, projection))
    }

    /// Short names of all linear layers, in the order in which they are first computed.
    #[must_use]
    pub fn linear_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (_, linear) in self.linears() {
            if !names.contains(&linear.short_name()) {
                names.push(linear.short_name());
            }
        }
        names
    }
}

impl Layer {
    /// Its attention; `None` for another token mixer.
    #[must_use]
    pub fn attention(&self) -> Option<&Attention> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::ShortConvolution(_) | Mixer::DeltaRule(_) => None,
        }
    }

    /// Linear layers, in the order of computation.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        Projection::ALL.into_iter().flat_map(|projection| self.fused(projection))
    }

    /// Linear layers of a fused projection, in the order of their columns. Those of experts, which no adapter can change,
    /// are not among them.
    #[must_use]
    pub fn fused(&self, projection: Projection) -> &[Linear] {
        match projection {
            Projection::GateUp | Projection::Down if self.feed_forward.experts.is_some() => &[],
            Projection::Qkv => self.mixer.inputs(),
            Projection::O => std::slice::from_ref(self.mixer.output()),
            Projection::GateUp => &self.feed_forward.up,
            Projection::Down => std::slice::from_ref(&self.feed_forward.down),
            Projection::InputGate => self.input.as_ref().map_or(&[], |input| std::slice::from_ref(&input.gate)),
            Projection::Input => self.input.as_ref().map_or(&[], |input| std::slice::from_ref(&input.projection)),
            Projection::LayerInputs => &[],
        }
    }
}

impl Mixer {
    /// Linear layers of the block's input, in the order of their columns.
    #[must_use]
    pub fn inputs(&self) -> &[Linear] {
        match self {
            Self::Attention(attention) => &attention.qkv,
            Self::ShortConvolution(convolution) => std::slice::from_ref(&convolution.input),
            Self::DeltaRule(rule) => &rule.inputs,
        }
    }

    /// Linear layer of the block's result.
    #[must_use]
    pub fn output(&self) -> &Linear {
        match self {
            Self::Attention(attention) => &attention.output,
            Self::ShortConvolution(convolution) => &convolution.output,
            Self::DeltaRule(rule) => &rule.output,
        }
    }

    /// Linear layers of the block's input, and that of its result.
    pub(crate) fn linears_mut(&mut self) -> (&mut [Linear], &mut Linear) {
        match self {
            Self::Attention(attention) => (&mut attention.qkv, &mut attention.output),
            Self::ShortConvolution(convolution) => {
                (std::slice::from_mut(&mut convolution.input), &mut convolution.output)
            }
            Self::DeltaRule(rule) => (&mut rule.inputs, &mut rule.output),
        }
    }
}

impl Attention {
    /// Width of all query heads together.
    #[must_use]
    pub fn q_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Experts {
    /// Prefix of the names of expert `index` within its layer. GGUF files hold the matrices of all experts as one tensor.
    #[must_use]
    pub fn expert(&self, index: usize) -> Name {
        Name::new(&format!("{}.{index}.", self.prefix), "")
    }
}

impl Linear {
    /// Last part of the Hugging Face name, such as `q_proj`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.hf.rsplit('.').next().unwrap_or_default()
    }
}

impl Name {
    /// A name in both formats.
    #[must_use]
    pub fn new(hf: &str, gguf: &str) -> Self {
        Self { hf: hf.to_owned(), gguf: gguf.to_owned() }
    }

    /// Hugging Face name of the weight.
    #[must_use]
    pub fn weight(&self) -> String {
        format!("{}.weight", self.hf)
    }

    /// Hugging Face name of the bias.
    #[must_use]
    pub fn bias(&self) -> String {
        format!("{}.bias", self.hf)
    }

    /// The name within a prefix, such as [`Architecture::layer_prefix`].
    #[must_use]
    pub fn within(&self, prefix: &Self) -> Self {
        Self { hf: format!("{}{}", prefix.hf, self.hf), gguf: format!("{}{}", prefix.gguf, self.gguf) }
    }
}

/// Fused projection: linear layers that are one matrix in the graph, with one place for adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// Queries, keys and values side by side, or other inputs of a token mixer.
    Qkv,
    /// Output of attention, or of another token mixer.
    O,
    /// Gates and values side by side, or values alone.
    GateUp,
    /// Feed-forward output.
    Down,
    /// Gate of the layer's own input.
    InputGate,
    /// The layer's own input, gated, back to the residual stream.
    Input,
    /// To the own inputs of all layers; only in the layer after the last.
    LayerInputs,
}

impl Projection {
    /// All fused projections, in the order of their indices within a layer.
    pub const ALL: [Self; 7] =
        [Self::Qkv, Self::O, Self::GateUp, Self::Down, Self::InputGate, Self::Input, Self::LayerInputs];

    /// Index of this projection of `layer` among all of the model: the attribute `group` of an operator.
    #[must_use]
    pub fn index(self, layer: usize) -> usize {
        layer * Self::ALL.len() + self as usize
    }
}
