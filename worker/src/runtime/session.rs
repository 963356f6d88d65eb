//! One decoder over static cache buffers: prompts go in one sequence at a time, then all sequences step together.
//!
//! Sequences live in cache slots. Decoding runs over the slots `0..n` without gaps, because a batch is one contiguous
//! piece of the cache buffers; a slot in the middle that becomes free is filled by moving the last one into it.

use std::{
    ffi::CString,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use ort::session::{Session, builder::GraphOptimizationLevel};
use slm_convert::{bundle::Bundle, config::ModelConfig};

use super::{
    binding::{Binding, Buffer},
    library::Runtime,
    operators,
};
use crate::adapters::AdapterTable;

/// How a session is laid out.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// Sequences that can be in the cache at once.
    pub sequences_max: usize,
    /// Positions of each sequence.
    pub context_length: usize,
    /// Threads that a step runs on, the caller's included.
    pub threads: usize,
}

/// The session could not be made or a step failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// ONNX Runtime refused.
    #[error("ONNX Runtime: {0}")]
    Runtime(#[from] ort::Error),
    /// The converted model cannot be opened.
    #[error("{}: {source}; if the folder is damaged, delete it and it will be made again", .bundle.display())]
    Open {
        /// Its folder.
        bundle: PathBuf,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// More context than the graph has rotary tables for.
    #[error("context length {asked} is more than the {most} positions that this model has")]
    ContextLength {
        /// Wanted.
        asked: usize,
        /// There are.
        most: usize,
    },
}

/// Tokens of a prompt that are processed in one step at most; bounds the activations' memory.
pub const CHUNK_MAX: usize = 512;

/// A model that steps.
pub struct DecoderSession {
    // Bindings first: they must go before the session and the memory they point to.
    decode: Vec<Option<Binding>>,
    prefill: Vec<Option<Binding>>,
    session: Session,
    names: Names,
    inputs: Inputs,
    logits: Buffer<f32>,
    cache: Vec<[Buffer<f32>; 2]>,
    layout: Layout,
}

/// Small inputs, rewritten before each step.
struct Inputs {
    ids: Buffer<i64>,
    rows: Buffer<i32>,
    lengths: Buffer<i32>,
    total: Buffer<i32>,
    wanted: Buffer<i64>,
}

struct Names {
    past: Vec<[CString; 2]>,
    present: Vec<[CString; 2]>,
}

#[derive(Clone, Copy)]
struct Layout {
    sequences: usize,
    context: usize,
    vocab: usize,
    kv_heads: usize,
    head_dim: usize,
    wanted_max: usize,
}

impl DecoderSession {
    /// Opens the bundle's graph. Adapters are looked up in `table` by the slot numbers given to each step.
    pub fn open(
        runtime: &Runtime,
        bundle: &Bundle,
        config: SessionConfig,
        table: Arc<AdapterTable>,
    ) -> Result<Self, SessionError> {
        let model = &bundle.info.config;
        if config.context_length > bundle.info.context_length {
            return Err(SessionError::ContextLength { asked: config.context_length, most: bundle.info.context_length });
        }
        let session = build_session(runtime, bundle, config, table)?;
        let layout = Layout::new(model, config);
        let cache_len = layout.sequences * layout.slot_len();
        let slots = layout.sequences;
        Ok(Self {
            decode: (0..=slots).map(|_| None).collect(),
            prefill: (0..slots).map(|_| None).collect(),
            session,
            names: Names::new(model.layers)?,
            inputs: Inputs {
                ids: Buffer::zeroed(CHUNK_MAX.max(slots)),
                rows: Buffer::zeroed(slots),
                lengths: Buffer::zeroed(slots),
                total: Buffer::zeroed(1),
                wanted: Buffer::zeroed(layout.wanted_max),
            },
            logits: Buffer::zeroed(layout.wanted_max * layout.vocab),
            cache: (0..model.layers).map(|_| [Buffer::zeroed(cache_len), Buffer::zeroed(cache_len)]).collect(),
            layout,
        })
    }

    /// Cache slots there are.
    pub fn sequences_max(&self) -> usize {
        self.layout.sequences
    }

    /// Positions of a slot.
    pub fn context_length(&self) -> usize {
        self.layout.context
    }

    /// Length of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.layout.vocab
    }

    /// Bytes that one token takes in the cache.
    pub fn cache_bytes_per_token(&self) -> usize {
        self.cache.len() * 2 * self.layout.kv_heads * self.layout.head_dim * size_of::<f32>()
    }

    /// Appends `tokens` (1 to [`CHUNK_MAX`]) to the sequence in `slot`, of which `past` are in the cache already, and
    /// returns the logits after the last of them.
    pub fn prefill(
        &mut self,
        slot: usize,
        past: usize,
        tokens: &[u32],
        adapter: Option<usize>,
    ) -> Result<&[f32], SessionError> {
        self.prefill_wanting(slot, past, tokens, adapter, tokens.len() - 1..tokens.len())
    }

    /// As [`prefill`](Self::prefill), with logits after each token of `wanted`, row after row.
    pub fn prefill_wanting(
        &mut self,
        slot: usize,
        past: usize,
        tokens: &[u32],
        adapter: Option<usize>,
        wanted: std::ops::Range<usize>,
    ) -> Result<&[f32], SessionError> {
        let rows = wanted.len();
        debug_assert!(tokens.len() <= CHUNK_MAX && past + tokens.len() <= self.layout.context);
        self.fill(0, tokens, past + tokens.len(), adapter);
        self.inputs.total.as_mut_slice()[0] = (past + tokens.len()) as i32;
        for (slot, index) in self.inputs.wanted.as_mut_slice().iter_mut().zip(wanted) {
            *slot = index as i64;
        }
        if self.prefill[slot].is_none() {
            self.prefill[slot] = Some(self.bind_cache(slot, 1)?);
        }
        let Some(binding) = &mut self.prefill[slot] else { return Err(unbound()) };
        binding.input(c"input_ids", &self.inputs.ids.view(0, &[1, tokens.len()])?)?;
        binding.input(c"logits_indices", &self.inputs.wanted.view(0, &[rows])?)?;
        binding.output(c"logits", &self.logits.view(0, &[rows, self.layout.vocab])?)?;
        binding.run(&mut self.session)?;
        Ok(&self.logits.as_slice()[..rows * self.layout.vocab])
    }

    /// One token more for each of the sequences in slots `0..rows.len()`; returns a row of logits for each.
    pub fn decode(&mut self, rows: &[DecodeRow]) -> Result<&[f32], SessionError> {
        let batch = rows.len();
        let mut total = 0;
        for (slot, row) in rows.iter().enumerate() {
            debug_assert!(row.past < self.layout.context);
            self.fill(slot, &[row.token], row.past + 1, row.adapter);
            self.inputs.wanted.as_mut_slice()[slot] = slot as i64;
            total = total.max(row.past + 1);
        }
        self.inputs.total.as_mut_slice()[0] = total as i32;
        if self.decode[batch].is_none() {
            let mut binding = self.bind_cache(0, batch)?;
            binding.input(c"input_ids", &self.inputs.ids.view(0, &[batch, 1])?)?;
            binding.input(c"logits_indices", &self.inputs.wanted.view(0, &[batch])?)?;
            binding.output(c"logits", &self.logits.view(0, &[batch, self.layout.vocab])?)?;
            self.decode[batch] = Some(binding);
        }
        let Some(binding) = &mut self.decode[batch] else { return Err(unbound()) };
        binding.run(&mut self.session)?;
        Ok(&self.logits.as_slice()[..batch * self.layout.vocab])
    }

    /// Copies the first `tokens` positions of slot `from` to slot `to`.
    pub fn move_slot(&mut self, from: usize, to: usize, tokens: usize) {
        let Layout { kv_heads, context, head_dim, .. } = self.layout;
        let used = tokens * head_dim;
        for buffer in self.cache.iter_mut().flatten() {
            let data = buffer.as_mut_slice();
            for head in 0..kv_heads {
                let at = |slot: usize| (slot * kv_heads + head) * context * head_dim;
                data.copy_within(at(from)..at(from) + used, at(to));
            }
        }
    }

    fn fill(&mut self, row: usize, tokens: &[u32], length: usize, adapter: Option<usize>) {
        for (id, &token) in self.inputs.ids.as_mut_slice()[row..].iter_mut().zip(tokens) {
            *id = i64::from(token);
        }
        self.inputs.rows.as_mut_slice()[row] = adapter.map_or(-1, |slot| slot as i32);
        self.inputs.lengths.as_mut_slice()[row] = length as i32 - 1;
    }

    /// A binding over the cache of `batch` slots from `first`, with everything that never changes.
    fn bind_cache(&self, first: usize, batch: usize) -> Result<Binding, SessionError> {
        let Layout { kv_heads, context, head_dim, .. } = self.layout;
        let shape = [batch, kv_heads, context, head_dim];
        let mut binding = Binding::new(&self.session)?;
        for (layer, buffers) in self.cache.iter().enumerate() {
            for (part, buffer) in buffers.iter().enumerate() {
                // The same memory as past and present: the operator then appends in place.
                let view = buffer.view(first * self.layout.slot_len(), &shape)?;
                binding.input(&self.names.past[layer][part], &view)?;
                binding.output(&self.names.present[layer][part], &view)?;
            }
        }
        binding.input(c"rows", &self.inputs.rows.view(0, &[batch])?)?;
        binding.input(c"seqlens_k", &self.inputs.lengths.view(0, &[batch])?)?;
        binding.input(c"total_sequence_length", &self.inputs.total.view(0, &[])?)?;
        Ok(binding)
    }
}

/// The bindings are made just before they are used; this is for the compiler.
fn unbound() -> SessionError {
    SessionError::Runtime(ort::Error::new("the step has no binding"))
}

/// One sequence's part of a decoding step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeRow {
    /// The token to append.
    pub token: u32,
    /// Tokens in the cache before it.
    pub past: usize,
    /// Slot of its adapter in the table.
    pub adapter: Option<usize>,
}

impl Layout {
    fn new(model: &ModelConfig, config: SessionConfig) -> Self {
        Self {
            sequences: config.sequences_max,
            context: config.context_length,
            vocab: model.vocab_size,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            wanted_max: CHUNK_MAX.max(config.sequences_max),
        }
    }

    fn slot_len(&self) -> usize {
        self.kv_heads * self.context * self.head_dim
    }
}

impl Names {
    fn new(layers: usize) -> Result<Self, ort::Error> {
        let pair = |prefix: &str, layer: usize| -> Result<[CString; 2], ort::Error> {
            let name = |part: &str| CString::new(format!("{prefix}_{part}.{layer}")).map_err(ort::Error::wrap);
            Ok([name("key")?, name("value")?])
        };
        Ok(Self {
            past: (0..layers).map(|layer| pair("past", layer)).collect::<Result<_, _>>()?,
            present: (0..layers).map(|layer| pair("present", layer)).collect::<Result<_, _>>()?,
        })
    }
}

fn build_session(
    runtime: &Runtime,
    bundle: &Bundle,
    config: SessionConfig,
    table: Arc<AdapterTable>,
) -> Result<Session, SessionError> {
    let operators = operators::domain(table, config.threads)?;
    let builder = Session::builder(&runtime.environment)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Level3).map_err(ort::Error::from)?;
    let builder = builder.with_intra_threads(config.threads).map_err(ort::Error::from)?;
    let builder = builder.with_inter_threads(1).map_err(ort::Error::from)?;
    let mut builder = builder.with_operators(operators).map_err(ort::Error::from)?;
    // ONNX Runtime keeps the domains of all sessions in one table, and looks and inserts without a lock: of two first
    // sessions of a process that open at once, one would be refused.
    static OPENING: Mutex<()> = Mutex::new(());
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = builder.commit_from_file(bundle.graph());
    opened.map_err(|source| SessionError::Open { bundle: bundle.dir.clone(), source })
}
