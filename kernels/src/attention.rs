//! Paged attention of a ragged batch: `out = softmax(scale * q K^T) V`, causal, grouped-query.
//!
//! The new tokens of all sequences are rows of one step without padding: prompt chunks and single tokens side by side.
//! Keys and values are in pages of [`PAGE`] positions ([`Pages`]), each sequence with its own page table
//! ([`Sequence::pages`]), so that sequences share the pages of a common prefix. The KV cache of the caller allocates
//! pages.
//!
//! Once a step: [`Plan::update`]. Then for each layer: [`Attention::append`] for all tokens, in any ranges on any
//! threads, which applies rotary embedding and stores keys and values; when all are done, [`Attention::attend`] for
//! each of [`Plan::items`], on any threads.
//!
//! Guarantee: an output has the same bits whatever else is in the batch, however the prompt was chunked, whichever
//! pages and however many threads are used, and on every instruction set, as long as all keys and values are finite.
//! For that, the definition partitions positions every [`PARTITION`], counted from the sequence's start. With a query
//! `q`, rotated and scaled, over the visible positions `j` of one partition, and an optional soft cap `cap`:
//!
//! ```text
//! s_j = fma chain over d of q_d * k_jd;  with a cap: s_j = cap * tanh(s_j / cap);  with a bias: s_j += bias of j
//! m = max s_j;  w_j = exp(s_j - m);  l = sum of w_j in 16 lanes by j mod 16, halved until one is left
//! v_d = fma chain over j of w_j * v_jd
//! ```
//!
//! and partitions are folded in order: `m' = max(M, m)`, `V = fma(V, exp(M - m'), v * exp(m - m'))`, `L` likewise,
//! `M = m'`. The output is `V / L`.
#![allow(unsafe_code)] // Rows and pages that several threads use at once; all bounds are checked once per call.

mod append;
mod fold;
mod pages;
mod partition;
mod plan;
mod shape;

use std::{num::NonZeroUsize, ops::Range};

pub use append::{QkNorm, Rotary};
pub use pages::{PAGE, Pages};
pub use partition::PARTITION;
pub use plan::{Plan, Sequence};
pub use shape::{HEAD_DIM_MAX, Shape};

use self::{
    append::Append,
    pages::Memory,
    partition::{Row, Work},
};
use crate::{level::Level, rows::Rows, rowwise::times_sigmoid};

/// Attention of one layer in one step, to be computed by several threads.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Plan of the step.
    pub plan: &'a Plan,
    /// The layer's keys and values.
    pub pages: Pages<'a>,
    /// Queries, rotated and scaled: written by [`Attention::append`], read by [`Attention::attend`]. A row of `heads *
    /// head_dim` for each token of the step.
    pub queries: Rows<'a>,
    /// Scale of the queries, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Sliding window: number of positions that a token attends to, itself included, to each side where the plan is
    /// bidirectional; `None` for all. Pages entirely
    /// before the windows of a sequence's new tokens are not read.
    pub window: Option<NonZeroUsize>,
    /// Soft cap: scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Norms of queries and keys.
    pub norm: Option<QkNorm<'a>>,
    /// What is appended to the pages.
    pub stored: Stored,
    /// Whether each query head has a gate behind it in the inputs, of the same width; see [`Attention::gate`].
    pub gated: bool,
    /// Numbers that are added to scores.
    pub bias: Option<RelativeBias<'a>>,
}

/// What is added to a score by how far a key is from its query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelativeBias<'a> {
    /// `[heads, 2 * positions - 1]`: of a head, those of the key `positions - 1` before the query up to the one as far behind it.
    pub table: &'a [f32],
    /// Number of positions that it reaches.
    pub positions: usize,
}

impl RelativeBias<'_> {
    fn check(&self, plan: &Plan) {
        let (heads, positions) = (plan.shape().heads(), self.positions);
        assert!(
            positions > 0 && self.table.len() == heads * (2 * positions - 1),
            "a bias of {} numbers for {heads} heads and {positions} positions",
            self.table.len()
        );
        assert!(plan.positions() <= positions, "a bias of {positions} positions for {}", plan.positions());
    }

    /// Biases of a head's query at `position`, from that of the key at position 0 on.
    fn of(&self, head: usize, position: usize) -> &[f32] {
        &self.table[head * (2 * self.positions - 1)..][self.positions - 1 - position..]
    }
}

/// What a token appends to its sequence's pages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stored {
    /// Keys and values of its own.
    Own {
        /// Whether the values are the keys, before norm and rotation.
        keys_as_values: bool,
        /// Epsilon of a norm of each head's values, without gains.
        value_norm: Option<f32>,
    },
    /// Nothing: the pages are those of another layer, which has appended the token before.
    Nothing,
}

impl Stored {
    /// Keys and values as they are.
    pub const PLAIN: Self = Self::Own { keys_as_values: false, value_norm: None };

    /// Floats of a row of inputs.
    pub fn width(&self, shape: &Shape) -> usize {
        shape.queries_width()
            + match self {
                Self::Own { keys_as_values: false, .. } => 2 * shape.kv_width(),
                Self::Own { keys_as_values: true, .. } => shape.kv_width(),
                Self::Nothing => 0,
            }
    }
}

impl Attention<'_> {
    /// Appends the step's tokens `tokens`: writes their queries to `queries`, their keys and values to their sequences'
    /// pages. Rows of `qkv` are `[heads + 2 * kv_heads, head_dim]`: queries, keys, values; without those that
    /// [`Attention::stored`] says are not there, and with a gate behind each query if it is [`Attention::gated`].
    ///
    /// # Panics
    /// Shapes do not fit each other, a position is beyond the rotary tables, or the CPU has not the level.
    ///
    /// # Safety
    /// No other thread appends the same tokens, attends, or uses the positions of these tokens at the same time.
    pub unsafe fn append(&self, level: Level, tokens: Range<usize>, qkv: &[f32], rotary: &Rotary<'_>) {
        self.check(level);
        let plan = self.plan;
        let width = self.input_width();
        assert!(tokens.end <= plan.tokens(), "tokens {tokens:?} of {}", plan.tokens());
        assert!(qkv.len() >= tokens.end * width, "{} floats are too few for {tokens:?} of {width}", qkv.len());
        rotary.check(plan.shape(), plan.positions());
        self.norm.iter().for_each(|norm| norm.check(plan.shape(), self.stored, self.gated));
        for token in tokens {
            let (span, position) = plan.place(token);
            let append = Append {
                shape: *plan.shape(),
                table: plan.table(span),
                position,
                qkv: &qkv[token * width..][..width],
                rotary: *rotary,
                norm: self.norm,
                stored: self.stored,
                gated: self.gated,
                scale: self.scale,
                // SAFETY: a row of `queries`, whose width was checked, and this thread's by the caller's promise.
                queries: unsafe {
                    std::slice::from_raw_parts_mut(self.queries.row(token), plan.shape().queries_width())
                },
            };
            // SAFETY: `check` made sure that the pages have the plan's shape and hold all that its tables name, and
            // that the CPU has the level; the plan that tables are as long as positions need.
            unsafe {
                match self.pages.memory() {
                    Memory::F32(memory) => append::append_at(level, memory, append),
                    Memory::F16(memory) => append::append_at(level, memory, append),
                }
            }
        }
    }

    /// Computes one of [`Plan::items`]: some rows of some heads of `out`, a row of `heads * head_dim` for each token.
    ///
    /// # Panics
    /// There is no such item, shapes do not fit each other, or the CPU has not the level.
    ///
    /// # Safety
    /// [`Attention::append`] is done for all tokens. Each item is computed once for a layer, all of them before the
    /// next layer's first, and nobody else uses the same rows of `out`, or writes to the pages or `queries`, at the same
    /// time.
    pub unsafe fn attend(&self, level: Level, item: usize, out: Rows<'_>) {
        self.check(level);
        let plan = self.plan;
        let shape = *plan.shape();
        self.bias.iter().for_each(|bias| bias.check(plan));
        assert!(
            out.width() == shape.queries_width() && out.len() >= plan.tokens(),
            "{} outputs of {} for {} tokens of {shape:?}",
            out.len(),
            out.width(),
            plan.tokens()
        );
        let item = plan.item(item);
        let span = plan.span(item.span);
        let mut rows = [Row::NONE; plan::ROWS_MAX];
        let rows = &mut rows[..item.rows.len()];
        for (row, index) in rows.iter_mut().zip(item.rows.clone()) {
            let token = span.first_token + index / shape.group();
            let position = span.begin + index / shape.group();
            let head = item.kv_head * shape.group() + index % shape.group();
            let column = head * shape.head_dim;
            let visible = plan.visible(span, position, self.window.map_or(usize::MAX, NonZeroUsize::get));
            *row = Row {
                // SAFETY: both are rows of `heads * head_dim` floats, the column one of a head's first.
                query: unsafe { self.queries.row(token).add(column).cast_const() },
                // SAFETY: as above.
                out: unsafe { out.row(token).add(column) },
                first: visible.start,
                end: visible.end,
                // A key that is visible is within the positions of the plan, which the bias reaches.
                bias: self.bias.as_ref().map_or(std::ptr::null(), |bias| bias.of(head, position).as_ptr()),
            };
        }
        let work = Work {
            shape,
            table: plan.table(span),
            kv_head: item.kv_head,
            rows,
            soft_cap: self.soft_cap,
            partitions: item.partitions.clone(),
            records: item.split.map(|split| plan.records(split)),
        };
        // SAFETY: as in `append`; rows are this thread's by the caller's promise, and records have room for all
        // partitions of the item's rows.
        unsafe {
            match self.pages.memory() {
                Memory::F32(memory) => partition::attend_at(level, memory, &work),
                Memory::F16(memory) => partition::attend_at(level, memory, &work),
            }
            if let Some(split) = item.split
                && plan.is_last(split)
            {
                fold::records(level, &work, plan.records(split));
            }
        }
    }

    /// Multiplies the results of tokens `tokens` by the sigmoids of their gates, if they have any. `qkv` and `out` are as in
    /// [`Attention::append`] and [`Attention::attend`].
    ///
    /// # Panics
    /// Shapes do not fit each other, or the CPU has not the level.
    ///
    /// # Safety
    /// All items are computed, and no other thread uses these rows of `out` at the same time.
    pub unsafe fn gate(&self, level: Level, tokens: Range<usize>, qkv: &[f32], out: Rows<'_>) {
        if !self.gated {
            return;
        }
        let (dim, width) = (self.plan.shape().head_dim, self.input_width());
        for token in tokens {
            let row = &qkv[token * width..][..width];
            // SAFETY: this thread's row, by the caller's promise.
            let results = unsafe { out.row_mut(token) };
            for (result, pair) in results.chunks_exact_mut(dim).zip(row.chunks_exact(2 * dim)) {
                times_sigmoid(level, &pair[dim..], result);
            }
        }
    }

    /// Floats of a row of inputs.
    pub fn input_width(&self) -> usize {
        let shape = self.plan.shape();
        self.stored.width(shape) + if self.gated { shape.queries_width() } else { 0 }
    }

    /// Appends all tokens and computes all items on this thread. Shapes as in [`Attention::append`] and
    /// [`Attention::attend`].
    ///
    /// # Panics
    /// As they do.
    pub fn all(&self, level: Level, qkv: &[f32], rotary: &Rotary<'_>, out: &mut [f32]) {
        let out = Rows::new(out, self.plan.shape().queries_width());
        // SAFETY: one thread, in order; `out` is borrowed exclusively and the views of queries and pages are of
        // memory that is.
        unsafe {
            self.append(level, 0..self.plan.tokens(), qkv, rotary);
            for item in 0..self.plan.items() {
                self.attend(level, item, out);
            }
            self.gate(level, 0..self.plan.tokens(), qkv, out);
        }
    }

    fn check(&self, level: Level) {
        let (plan, shape) = (self.plan, self.plan.shape());
        assert!(level.is_available(), "this CPU has no {level:?}");
        assert!(self.pages.shape() == shape, "pages of {:?} for a plan of {shape:?}", self.pages.shape());
        assert!(
            self.pages.count() >= plan.pages(),
            "a plan that names page {} of {}",
            plan.pages().saturating_sub(1),
            self.pages.count()
        );
        assert!(
            self.queries.width() == shape.queries_width() && self.queries.len() >= plan.tokens(),
            "{} queries of {} for {} tokens of {shape:?}",
            self.queries.len(),
            self.queries.width(),
            plan.tokens()
        );
    }
}
