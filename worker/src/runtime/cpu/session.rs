//! The CPU's backend: runs new tokens of any number of sequences, prefill and decode, in one forward pass.
//!
//! The session owns the KV cache's pages; `engine::cache` assigns them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::session::Session;
use slm_convert::{
    architecture::{Architecture, Attention, KeyValues, Layer},
    bundle::Bundle,
    graph::Precision,
};
use slm_kernels::attention::{PAGE, Shape};

use super::{forward_pass::ForwardPass, memory::KvMemory, operators, states::StateMemory};
use crate::{
    adapters::AdapterTable,
    runtime::{
        assignment::{self, Assignment},
        backend::{Backend, Chunk, Geometry, SessionConfig, SessionError, TOKENS_MAX},
        binding::{Binding, Buffer},
        library::Runtime,
        sessions::{builder, commit, plain},
    },
};

/// Bytes of a KV cache page over all layers.
pub fn page_bytes(model: &Architecture, precision: Precision) -> usize {
    let elements: usize = kv_shapes(model).iter().flatten().map(Shape::page_elements).sum();
    KvMemory::element_bytes(precision) * elements
}

/// Bytes of the state of a sequence over all layers.
pub fn state_bytes(model: &Architecture) -> usize {
    model.state_floats() * size_of::<f32>()
}

pub(super) fn shape(attention: &Attention) -> Shape {
    Shape::new(attention.heads, attention.kv_heads, attention.head_dim)
}

/// Heads of all layers that attend.
fn shapes(model: &Architecture) -> Vec<Shape> {
    model.layers.iter().filter_map(Layer::attention).map(shape).collect()
}

/// Heads of each layer with keys and values of its own.
fn kv_shapes(model: &Architecture) -> Vec<Option<Shape>> {
    let own = |attention: &&Attention| !matches!(attention.kv, KeyValues::OfLayer(_));
    model.layers.iter().map(|layer| layer.attention().filter(own).map(shape)).collect()
}

/// An open decoder.
pub(crate) struct DecoderSession {
    // First, because it must be dropped before the session and the memory that it points to.
    binding: Binding,
    session: Session,
    step: Arc<Mutex<ForwardPass>>,
    ids: Buffer<i64>,
    wanted: Buffer<i64>,
    logits: Buffer<f32>,
    /// Bound numbers of tokens and rows of logits.
    bound: (usize, usize),
    /// Rows of logits of the last step.
    rows: usize,
    geometry: Geometry,
    threads: usize,
}

impl DecoderSession {
    /// Opens the bundle's graph. Adapters are looked up in `table` by the slots of each step.
    pub(crate) fn open(
        runtime: &Runtime,
        bundle: &Bundle,
        config: SessionConfig,
        table: Arc<AdapterTable>,
    ) -> Result<Self, SessionError> {
        let model = &bundle.info.architecture;
        if config.context_length > model.context_length {
            return Err(SessionError::ContextLength { asked: config.context_length, most: model.context_length });
        }
        let floats: Vec<usize> = model.layers.iter().map(|layer| layer.mixer.state_floats()).collect();
        let states = StateMemory::new(&floats, config.sequences);
        // A page says nothing of the state at its end, and a state does not go back to the tokens before a wrong draft.
        let only_pages = states.slots() == 0;
        let geometry = Geometry {
            context_length: config.context_length,
            page: PAGE,
            pages: config.pages,
            logits: config.logits,
            vocab_size: model.vocab_size,
            states: states.slots(),
            shares_pages: only_pages,
            drafts: only_pages,
        };
        let kv = KvMemory::new(&kv_shapes(model), config.pages, bundle.info.flavour.precision);
        let ropes = model.ropes.iter().map(|rope| rope.tables(config.context_length)).collect();
        let step = Arc::new(Mutex::new(ForwardPass::new(&shapes(model), (kv, states), ropes, table)));
        let session = build_session(runtime, bundle, config.threads, &step)?;
        Ok(Self {
            binding: Binding::new(&session)?,
            session,
            step,
            ids: Buffer::filled(TOKENS_MAX, 0),
            wanted: Buffer::filled(TOKENS_MAX, 0),
            // Written to now, so that the process's memory use shows at the start and not with its largest step.
            logits: Buffer::filled(config.logits.max(1) * model.vocab_size, f32::NAN),
            bound: (0, 0),
            rows: 0,
            geometry,
            threads: config.threads,
        })
    }

    /// Number of the graph's nodes that each execution provider computes.
    pub(crate) fn nodes(&self) -> ort::Result<Assignment> {
        assignment::of(&self.session)
    }
}

impl Backend for DecoderSession {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<usize, SessionError> {
        let (tokens, wanted) = self.geometry.check(chunks)?;
        self.lock().prepare(chunks, self.threads)?;
        self.fill(chunks);
        // At least one row of logits is bound: an empty Gather is not covered by tests.
        self.bind(tokens, wanted.max(1))?;
        let ran = self.binding.run(&mut self.session, None);
        let mut step = self.lock();
        step.adapters.release();
        ran?;
        step.states.finish(chunks);
        drop(step);
        self.rows = wanted;
        Ok(wanted)
    }

    fn row(&mut self, row: usize) -> Result<&[f32], SessionError> {
        let vocab = self.geometry.vocab_size;
        Ok(&self.rows()?[row * vocab..(row + 1) * vocab])
    }

    fn rows(&mut self) -> Result<&[f32], SessionError> {
        Ok(&self.logits.as_slice()[..self.rows * self.geometry.vocab_size])
    }
}

impl DecoderSession {
    /// Writes the graph's inputs.
    fn fill(&mut self, chunks: &[Chunk<'_>]) {
        let (ids, indices) = (self.ids.as_mut_slice(), self.wanted.as_mut_slice());
        indices[0] = 0;
        let (mut first, mut wanted) = (0, 0);
        for chunk in chunks {
            let end = first + chunk.tokens.len();
            for (id, &token) in ids[first..end].iter_mut().zip(chunk.tokens) {
                *id = i64::from(token);
            }
            let rows = chunk.logits.count(chunk.tokens.len());
            for (index, token) in indices[wanted..wanted + rows].iter_mut().zip(end - rows..end) {
                *index = token as i64;
            }
            (first, wanted) = (end, wanted + rows);
        }
    }

    fn bind(&mut self, tokens: usize, wanted: usize) -> Result<(), SessionError> {
        if self.bound == (tokens, wanted) {
            return Ok(());
        }
        self.bound = (0, 0);
        self.binding.input(c"input_ids", &self.ids.view([tokens])?)?;
        self.binding.input(c"logits_indices", &self.wanted.view([wanted])?)?;
        self.binding.output(c"logits", &self.logits.view([wanted, self.geometry.vocab_size])?)?;
        self.bound = (tokens, wanted);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ForwardPass> {
        // The next step overwrites whatever a panic left.
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn build_session(
    runtime: &Runtime,
    bundle: &Bundle,
    threads: usize,
    step: &Arc<Mutex<ForwardPass>>,
) -> Result<Session, SessionError> {
    let operators = operators::domain(step.clone(), threads)?;
    let builder = builder(runtime)?.with_intra_threads(threads).map_err(plain)?;
    commit(&mut builder.with_operators(operators).map_err(plain)?, bundle)
}
