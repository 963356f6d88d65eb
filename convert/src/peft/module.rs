//! Projections that an adapter can change.

use crate::config::ModelConfig;

/// A linear layer of a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Module {
    /// All modules, in the order in which a layer computes them.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Last part of the Hugging Face name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Hugging Face name in layer `layer`, without `.weight`.
    #[must_use]
    pub fn path(self, layer: usize) -> String {
        let block = match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("model.layers.{layer}.{block}.{}", self.name())
    }

    /// Hugging Face name of the weight in layer `layer`.
    #[must_use]
    pub fn weight(self, layer: usize) -> String {
        format!("{}.weight", self.path(layer))
    }

    /// `(inputs, outputs)` in a model of that shape.
    #[must_use]
    pub fn dimensions(self, base: &ModelConfig) -> (usize, usize) {
        match self {
            Self::Q => (base.hidden_size, base.q_size()),
            Self::K | Self::V => (base.hidden_size, base.kv_size()),
            Self::O => (base.q_size(), base.hidden_size),
            Self::Gate | Self::Up => (base.hidden_size, base.intermediate_size),
            Self::Down => (base.intermediate_size, base.hidden_size),
        }
    }
}
