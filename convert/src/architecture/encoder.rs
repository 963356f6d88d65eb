//! What an encoder has that a decoder has not.

use serde::{Deserialize, Serialize};

use super::{Name, Norm};

/// A pair has two texts.
const TYPES_MAX: usize = 2;

/// Parts of an encoder, whose tokens see all tokens of their text. It ends with the states of its tokens, instead of logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    /// Learned position embeddings, added to embedded tokens; `None` for a model that rotates instead.
    pub positions: Option<Rows>,
    /// Embeddings of token types. A text has the first; the second text of a pair may have the next one.
    pub token_types: Option<Rows>,
    /// Bias of the scores of all layers by distance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_bias: Option<RelativeBias>,
    /// Norm of the embedded tokens.
    pub embedding_norm: Option<Norm>,
    /// Begins of the names of tensors that belong to heads of other tasks.
    pub unused: Vec<String>,
}

/// What is added to a score by how far a key is from its query: a row of a table `[buckets, heads]`. Half of the buckets are for keys
/// before the query and the query itself, half for those behind it; the first half of each half are distances one by one, the rest are
/// distances up to [`RelativeBias::DISTANCE_MAX`] on a logarithmic scale (T5's).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelativeBias {
    /// Its tensor.
    pub name: Name,
    /// Number of rows.
    pub buckets: usize,
}

impl RelativeBias {
    /// Distances from here on share a bucket.
    pub const DISTANCE_MAX: usize = 128;

    /// Bucket of a key `distance` behind the query, or before it if negative.
    #[must_use]
    pub fn bucket(&self, distance: isize) -> usize {
        let half = self.buckets / 2;
        let (exact, far) = (half / 2, distance.unsigned_abs());
        let side = if distance > 0 { half } else { 0 };
        if far < exact {
            return side + far;
        }
        // In 32 bits, as the reference computes it: where a bucket ends depends on the rounding.
        let scale = (far as f32 / exact as f32).ln() / (Self::DISTANCE_MAX as f64 / exact as f64).ln() as f32;
        side + (exact + (scale * (half - exact) as f32) as usize).min(half - 1)
    }
}

/// An embedding table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Its tensor.
    pub name: Name,
    /// Number of rows.
    pub count: usize,
    /// Row of the first position, or of the type.
    pub first: usize,
}

impl Encoder {
    /// Token types that a pair may have: more than one where types and positions are both embedded.
    #[must_use]
    pub fn types(&self) -> usize {
        match (&self.positions, &self.token_types) {
            (Some(_), Some(types)) => types.count.saturating_sub(types.first).clamp(1, TYPES_MAX),
            _ => 1,
        }
    }

    /// Whether a tensor, or a module, belongs to the head of another task.
    pub(crate) fn is_unused(&self, name: &str) -> bool {
        self.unused.iter().any(|begin| name.starts_with(begin))
    }
}
