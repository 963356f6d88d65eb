//! Model configuration, independent of the file format.

use serde::{Deserialize, Serialize};

pub use crate::config_error::ConfigError;
use crate::rope::Rope;

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Graph builder to use.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gate and up projections.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; not always `hidden_size / heads`.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Epsilon under the root of every RMS norm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Sliding window: keys further back are masked; `None` for full attention.
    pub sliding_window: Option<usize>,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Trained context length in positions.
    pub context_length: usize,
}

/// Model families with differing graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// Llama and all models with its graph, such as SmolLM2.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
}

/// No real model comes near; below this, products of two dimensions cannot overflow.
const DIMENSION_MAX: usize = 1 << 24;
const LAYERS_MAX: usize = 1024;

impl ModelConfig {
    /// Refuses shapes that no graph can be built from; `file` is named in errors.
    ///
    /// # Errors
    /// Names the first field that is out of range or inconsistent.
    pub fn check(&self, file: &str) -> Result<(), ConfigError> {
        let wrong = |field: &str, found: usize, expected: String| ConfigError::Wrong {
            file: file.to_owned(),
            field: field.to_owned(),
            found: found.to_string(),
            expected,
        };
        let dimensions = [
            ("hidden size", self.hidden_size, DIMENSION_MAX),
            ("intermediate size", self.intermediate_size, DIMENSION_MAX),
            ("number of layers", self.layers, LAYERS_MAX),
            ("number of attention heads", self.heads, DIMENSION_MAX),
            ("number of key/value heads", self.kv_heads, DIMENSION_MAX),
            ("head dimension", self.head_dim, DIMENSION_MAX),
            ("vocabulary size", self.vocab_size, DIMENSION_MAX),
            ("context length", self.context_length, DIMENSION_MAX),
        ];
        for (field, value, max) in dimensions {
            if value == 0 || value > max {
                return Err(wrong(field, value, format!("between 1 and {max}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(wrong(
                "number of key/value heads",
                self.kv_heads,
                format!("a divisor of {} heads", self.heads),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(wrong(
                "head dimension",
                self.head_dim,
                "an even number, as rotary embedding turns pairs".into(),
            ));
        }
        if self.heads * self.head_dim > DIMENSION_MAX {
            return Err(wrong(
                "head dimension",
                self.head_dim,
                format!("heads x dimension of at most {DIMENSION_MAX}"),
            ));
        }
        if self.sliding_window == Some(0) {
            return Err(wrong("sliding window", 0, "at least 1, or null".into()));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return Err(ConfigError::Wrong {
                file: file.to_owned(),
                field: "rms_norm_eps".to_owned(),
                found: self.rms_norm_eps.to_string(),
                expected: "a small positive number".to_owned(),
            });
        }
        self.rope.check(self.head_dim, file)
    }

    /// Width of all query heads together: outputs of `q_proj`, inputs of `o_proj`.
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
