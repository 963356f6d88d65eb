//! What an encoder has that a decoder has not.

use serde::{Deserialize, Serialize};

use super::{Name, Norm};

/// Parts of an encoder, whose tokens see all tokens of their text. It ends with the states of its tokens, instead of logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    /// Learned position embeddings, added to embedded tokens; `None` for a model that rotates instead.
    pub positions: Option<Rows>,
    /// Embeddings of token types, of which a text alone has the first.
    pub token_types: Option<Rows>,
    /// Norm of the embedded tokens.
    pub embedding_norm: Option<Norm>,
    /// Begins of the names of tensors that belong to heads of other tasks.
    pub unused: Vec<String>,
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
    /// Whether a tensor, or a module, belongs to the head of another task.
    pub(crate) fn is_unused(&self, name: &str) -> bool {
        self.unused.iter().any(|begin| name.starts_with(begin))
    }
}
