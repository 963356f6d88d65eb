//! Number and size of attention heads.

use super::PAGE;
use crate::simd::WIDTH;

/// Bound on the floats of a head.
pub const HEAD_DIM_MAX: usize = 512;

/// Head shape of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    heads: usize,
    kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Shape {
    /// `heads` query heads in `kv_heads` groups (grouped-query attention).
    ///
    /// # Panics
    /// `heads` is not a multiple of `kv_heads`, or `head_dim` not a multiple of 16 from 16 to [`HEAD_DIM_MAX`].
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        assert!(
            heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "{heads} heads cannot share {kv_heads} keys and values evenly"
        );
        assert!(
            (WIDTH..=HEAD_DIM_MAX).contains(&head_dim) && head_dim.is_multiple_of(WIDTH),
            "heads of {head_dim}: attention takes multiples of {WIDTH} up to {HEAD_DIM_MAX}"
        );
        Self { heads, kv_heads, head_dim }
    }

    /// Query heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Floats of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Query heads for each key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Floats of a token's queries, and of its output.
    pub fn queries_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Floats of a token's keys, and of its values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Floats of a token's queries, keys and values together.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Elements of a page: keys and values of [`PAGE`] positions.
    pub fn page_elements(&self) -> usize {
        2 * self.kv_heads * PAGE * self.head_dim
    }
}
