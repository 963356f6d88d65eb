//! Token mixers with a state of fixed size for each sequence, instead of keys and values for each token.

use serde::{Deserialize, Serialize};

use super::{Architecture, Linear, Mixer, Name, Norm};

/// Gated short convolution: with `b`, `c` and `x` side by side from the first linear layer, and a causal convolution of each
/// channel by itself, `y = output(c * (convolution(b * x) + bias))`.
///
/// Its state is `b * x` of the last tokens that the next ones see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShortConvolution {
    /// Channels.
    pub width: usize,
    /// Tokens that a token sees, itself included.
    pub kernel: usize,
    /// Weights of the convolution, `[width, 1, kernel]`, and its bias.
    pub convolution: Name,
    /// Whether the convolution has a bias.
    pub bias: bool,
    /// Linear layer whose outputs are `b`, `c` and `x`.
    pub input: Linear,
    /// Output projection.
    pub output: Linear,
}

/// Gated delta rule: linear attention whose state, a matrix for each value head, forgets by a gate of each token and is
/// corrected towards its value.
///
/// ```text
/// q, k, v = silu(convolution(q, k, v));  q = q / |q| / sqrt(key_dim);  k = k / |k|
/// g = exp(-exp(decay) * softplus(a + step));  S = g S;  S += sigmoid(b) * k (v - S^T k)^T
/// y = output(norm(S^T q) * silu(z))
/// ```
///
/// A key head serves consecutive value heads. Its state is the inputs of the convolution of the last tokens, and `S` of each
/// value head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeltaRule {
    /// Heads of queries and of keys.
    pub key_heads: usize,
    /// Heads of values; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Width of a head of queries, or keys.
    pub key_dim: usize,
    /// Width of a head of values.
    pub value_dim: usize,
    /// Tokens that the convolution of a token sees, itself included.
    pub kernel: usize,
    /// Weights of the convolution over queries, keys and values, `[channels, 1, kernel]`.
    pub convolution: Name,
    /// Logarithms of decay rates, one for each value head. Its names have no `.weight` added.
    pub decay: Name,
    /// Biases of the steps, as `decay`.
    pub step: Name,
    /// Norm of the result of each value head.
    pub norm: Norm,
    /// Linear layers whose outputs, side by side, are queries, keys and values; gates `z` of the result; `b`; and `a`.
    pub inputs: Vec<Linear>,
    /// Output projection.
    pub output: Linear,
}

impl DeltaRule {
    /// Channels of the convolution: all queries, keys and values of a token.
    #[must_use]
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_width()
    }

    /// Width of all value heads together.
    #[must_use]
    pub fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }
}

impl Mixer {
    /// Floats of the state of a sequence.
    #[must_use]
    pub fn state_floats(&self) -> usize {
        match self {
            Self::Attention(_) => 0,
            Self::ShortConvolution(of) => of.kernel.saturating_sub(1) * of.width,
            Self::DeltaRule(of) => of.kernel.saturating_sub(1) * of.channels() + of.value_width() * of.key_dim,
        }
    }
}

impl Architecture {
    /// Floats of the state of a sequence over all layers; zero for a model whose layers all have keys and values.
    #[must_use]
    pub fn state_floats(&self) -> usize {
        self.layers.iter().map(|layer| layer.mixer.state_floats()).sum()
    }
}
