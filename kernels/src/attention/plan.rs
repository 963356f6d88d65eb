//! Plan of a step: its rows, divided into items that any thread may compute.
#![allow(unsafe_code)] // Records are written by the threads that share a plan; who writes where is `attend`'s contract.

use std::{cell::UnsafeCell, ops::Range};

use super::{PAGE, PARTITION, Shape, fold::record};
use crate::phases::Countdown;

/// Bound on the rows of an item. Keys and values are read from a near cache again for every few rows.
pub(super) const ROWS_MAX: usize = 48;

/// Bound on the rows of an item if more items are needed for all threads.
const ROWS_MIN: usize = 12;

/// Items for each thread, so that threads end at about the same time.
const ITEMS_PER_THREAD: usize = 2;

/// The new tokens of a sequence.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Page table: the pages of positions `0..PAGE`, `PAGE..2 * PAGE` and so on, at least as many as the new tokens
    /// need. Pages before `begin` may be shared with other tables; those of the new tokens may not.
    pub pages: &'a [u32],
    /// Position of the first new token.
    pub begin: usize,
    /// Number of new tokens, at successive positions and in successive rows of the step.
    pub tokens: usize,
}

/// A sequence within the step.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) first_token: usize,
    pub(super) begin: usize,
    tokens: usize,
    table: Range<usize>,
}

/// Rows of one head of keys of one sequence; row `i` is head `i % group` of token `i / group`.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) span: usize,
    pub(super) kv_head: usize,
    pub(super) rows: Range<usize>,
    pub(super) partitions: Range<usize>,
    /// Split that the item belongs to, if other items have the rest of its rows' partitions.
    pub(super) split: Option<usize>,
}

/// Items that share rows.
#[derive(Debug)]
struct Split {
    items: Countdown,
    records: usize,
}

/// Plan of a step, divided into items. Reused; it allocates only when it outgrows former steps.
#[derive(Debug)]
pub struct Plan {
    shape: Shape,
    /// Whether tokens see earlier positions only, and themselves.
    causal: bool,
    tokens: usize,
    positions: usize,
    pages: usize,
    spans: Vec<Span>,
    tables: Vec<u32>,
    items: Vec<Item>,
    splits: Vec<Split>,
    records: Vec<UnsafeCell<f32>>,
}

// SAFETY: cells are written through `Plan::records` only, whose callers say who writes where.
unsafe impl Sync for Plan {}

impl Plan {
    /// An empty step, whose tokens see the positions up to their own.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            causal: true,
            tokens: 0,
            positions: 0,
            pages: 0,
            spans: Vec::new(),
            tables: Vec::new(),
            items: Vec::new(),
            splits: Vec::new(),
            records: Vec::new(),
        }
    }

    /// An empty step, whose tokens see all positions of their sequence up to its last new token: that of an encoder.
    pub fn bidirectional(shape: Shape) -> Self {
        Self { causal: false, ..Self::new(shape) }
    }

    /// Plans a step of `sequences`, whose new tokens are rows in this order, for about `threads` threads. Outputs do
    /// not depend on `threads`.
    ///
    /// # Panics
    /// A sequence has no new token, or too few pages.
    pub fn update(&mut self, sequences: &[Sequence<'_>], threads: usize) {
        // First, in case of a panic: items of the last step would not fit this one's page tables.
        self.items.clear();
        self.splits.clear();
        (self.tokens, self.positions, self.pages) = (0, 0, 0);
        self.spans.clear();
        self.tables.clear();
        for sequence in sequences {
            let Sequence { pages, begin, tokens } = *sequence;
            let end = begin + tokens;
            assert!(tokens > 0, "a sequence without new tokens");
            assert!(pages.len() * PAGE >= end, "{} pages of {PAGE} are too few for {end} positions", pages.len());
            let pages = &pages[..end.div_ceil(PAGE)];
            let table = self.tables.len()..self.tables.len() + pages.len();
            self.tables.extend(pages);
            self.spans.push(Span { first_token: self.tokens, begin, tokens, table });
            self.tokens += tokens;
            self.positions = self.positions.max(end);
            self.pages = pages.iter().fold(self.pages, |most, &page| most.max(page as usize + 1));
        }
        self.cut(threads);
    }

    /// Divides the step into as few items as keep the threads busy: first by rows, then by partitions.
    fn cut(&mut self, threads: usize) {
        let wanted = if threads < 2 { 1 } else { ITEMS_PER_THREAD * threads };
        let mut rows_most = ROWS_MAX;
        let blocks = |rows_most: usize| -> usize {
            self.spans.iter().map(|span| (span.tokens * self.shape.group()).div_ceil(rows_most)).sum()
        };
        while rows_most > ROWS_MIN && blocks(rows_most) * self.shape.kv_heads() < wanted {
            rows_most /= 2;
        }
        let parts_most = wanted.div_ceil((blocks(rows_most) * self.shape.kv_heads()).max(1));
        let mut records = 0;
        for (index, span) in self.spans.iter().enumerate() {
            let rows = span.tokens * self.shape.group();
            for kv_head in 0..self.shape.kv_heads() {
                for first in (0..rows).step_by(rows_most) {
                    let rows = first..(first + rows_most).min(rows);
                    let last_token = (rows.end - 1) / self.shape.group();
                    let seen = if self.causal { last_token + 1 } else { span.tokens };
                    let partitions = (span.begin + seen).div_ceil(PARTITION);
                    let parts = parts_most.min(partitions);
                    let split = (parts > 1).then_some(self.splits.len());
                    for part in 0..parts {
                        self.items.push(Item {
                            span: index,
                            kv_head,
                            rows: rows.clone(),
                            partitions: part * partitions / parts..(part + 1) * partitions / parts,
                            split,
                        });
                    }
                    if parts > 1 {
                        self.splits.push(Split { items: Countdown::new(parts), records });
                        records += partitions * rows.len() * record(self.shape.head_dim);
                    }
                }
            }
        }
        if self.records.len() < records {
            self.records.resize_with(records, || UnsafeCell::new(0.0));
        }
    }

    /// Head shape of the model's layers.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of rows.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Number of items for [`Attention::attend`](super::Attention::attend).
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// One more than the highest position of a new token.
    pub(super) fn positions(&self) -> usize {
        self.positions
    }

    /// One more than the highest page.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    pub(super) fn item(&self, index: usize) -> &Item {
        &self.items[index]
    }

    pub(super) fn span(&self, index: usize) -> &Span {
        &self.spans[index]
    }

    /// Positions that the token at `position` of a sequence sees, in a window of so many positions to each side, its own
    /// included.
    pub(super) fn visible(&self, span: &Span, position: usize, window: usize) -> Range<usize> {
        let end =
            if self.causal { position + 1 } else { position.saturating_add(window).min(span.begin + span.tokens) };
        (position + 1).saturating_sub(window)..end
    }

    /// Sequence and position of a token.
    pub(super) fn place(&self, token: usize) -> (&Span, usize) {
        let span = &self.spans[self.spans.partition_point(|span| span.first_token <= token) - 1];
        (span, span.begin + token - span.first_token)
    }

    pub(super) fn table(&self, span: &Span) -> &[u32] {
        &self.tables[span.table.clone()]
    }

    /// Address of a split's records: `[partitions, rows]`.
    pub(super) fn records(&self, split: usize) -> *mut f32 {
        let begin = self.splits[split].records;
        UnsafeCell::raw_get(self.records[begin..].as_ptr())
    }

    /// Counts an item of the split as done. True for the last one, which sees the others' writes; the count then
    /// restarts for the next layer.
    pub(super) fn is_last(&self, split: usize) -> bool {
        self.splits[split].items.is_last()
    }
}
