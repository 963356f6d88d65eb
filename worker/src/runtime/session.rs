//! The decoder session: runs new tokens of any number of sequences, prefill and decode, in one forward pass.
//!
//! The session owns the KV cache's pages; `engine::cache` assigns them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ort::session::{Session, builder::GraphOptimizationLevel};
use slm_convert::{
    architecture::{Architecture, KeyValues, Layer},
    bundle::Bundle,
    graph::Precision,
};
use slm_kernels::attention::{PAGE, Shape};

use super::{
    binding::{Binding, Buffer},
    forward_pass::{Chunk, ChunkError, ForwardPass},
    library::Runtime,
    memory::KvMemory,
    operators,
};
use crate::adapters::AdapterTable;

/// Configuration of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// Bound on the positions of a sequence.
    pub context_length: usize,
    /// Pages of the KV cache, of [`PAGE`] positions each.
    pub pages: usize,
    /// Bound on the rows of logits of a step.
    pub logits: usize,
    /// Threads of a step, including the caller's.
    pub threads: usize,
}

impl SessionConfig {
    /// Pages needed by `sequences` of `positions` each.
    pub fn pages_for(sequences: usize, positions: usize) -> usize {
        sequences * positions.div_ceil(PAGE)
    }
}

/// The session could not be opened, or a step failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Error of ONNX Runtime.
    #[error("ONNX Runtime: {0}")]
    Runtime(#[from] ort::Error),
    /// The converted model cannot be opened.
    #[error("{}: {source}; if the folder is damaged, delete it and it will be made again", .bundle.display())]
    Open {
        /// Path of the bundle.
        bundle: PathBuf,
        /// Error of ONNX Runtime.
        source: ort::Error,
    },
    /// The context exceeds the trained one.
    #[error("context length {asked} is more than the {most} positions that this model has")]
    ContextLength {
        /// Requested positions.
        asked: usize,
        /// Available positions.
        most: usize,
    },
    /// The step requests too many rows of logits.
    #[error(
        "{asked} rows of logits are wanted of a step; the session was opened for {most}: want fewer, or open it for more"
    )]
    Logits {
        /// Requested rows.
        asked: usize,
        /// Available rows.
        most: usize,
    },
    /// The step has too many tokens, or none.
    #[error("a step of {0} tokens; it may have 1 to {TOKENS_MAX}")]
    Tokens(usize),
    /// A chunk is invalid.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// Bound on the tokens of a step over all chunks; bounds the memory of activations.
pub const TOKENS_MAX: usize = 512;

/// Bytes of a KV cache page over all layers.
pub fn page_bytes(model: &Architecture, precision: Precision) -> usize {
    let elements: usize = kv_shapes(model).iter().flatten().map(Shape::page_elements).sum();
    KvMemory::element_bytes(precision) * elements
}

/// Heads of each layer.
fn shapes(model: &Architecture) -> Vec<Shape> {
    let heads = model.layers.iter().map(|layer| &layer.attention);
    heads.map(|attention| Shape::new(attention.heads, attention.kv_heads, attention.head_dim)).collect()
}

/// Heads of each layer with keys and values of its own.
fn kv_shapes(model: &Architecture) -> Vec<Option<Shape>> {
    let own = |layer: &Layer| !matches!(layer.attention.kv, KeyValues::OfLayer(_));
    shapes(model).into_iter().zip(&model.layers).map(|(shape, layer)| own(layer).then_some(shape)).collect()
}

/// An open decoder.
pub struct DecoderSession {
    // First, because it must be dropped before the session and the memory that it points to.
    binding: Binding,
    session: Session,
    step: Arc<Mutex<ForwardPass>>,
    ids: Buffer<i64>,
    wanted: Buffer<i64>,
    logits: Buffer<f32>,
    /// Bound numbers of tokens and rows of logits.
    bound: (usize, usize),
    vocab: usize,
    config: SessionConfig,
}

impl DecoderSession {
    /// Opens the bundle's graph. Adapters are looked up in `table` by the slots of each step.
    pub fn open(
        runtime: &Runtime,
        bundle: &Bundle,
        config: SessionConfig,
        table: Arc<AdapterTable>,
    ) -> Result<Self, SessionError> {
        let model = &bundle.info.architecture;
        if config.context_length > model.context_length {
            return Err(SessionError::ContextLength { asked: config.context_length, most: model.context_length });
        }
        let kv = KvMemory::new(&kv_shapes(model), config.pages, bundle.info.precision);
        let ropes = model.ropes.iter().map(|rope| rope.tables(config.context_length)).collect();
        let step = Arc::new(Mutex::new(ForwardPass::new(&shapes(model), kv, ropes, table)));
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
            vocab: model.vocab_size,
            config,
        })
    }

    /// Configuration of the session.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Bytes of the logits buffer.
    pub fn logits_bytes(&self) -> usize {
        size_of_val(self.logits.as_slice())
    }

    /// Length of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.vocab
    }

    /// Runs a forward pass over `chunks`. Returns the requested rows of logits, in order. After an error the contents
    /// of the chunks' new positions are unspecified.
    pub fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], SessionError> {
        let tokens = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        if tokens == 0 || tokens > TOKENS_MAX {
            return Err(SessionError::Tokens(tokens));
        }
        let wanted = chunks.iter().map(|chunk| chunk.logits.count(chunk.tokens.len())).sum();
        if wanted > self.config.logits {
            return Err(SessionError::Logits { asked: wanted, most: self.config.logits });
        }
        self.lock().prepare(chunks, self.config.threads)?;
        self.fill(chunks);
        // At least one row of logits is bound: an empty Gather is not covered by tests.
        self.bind(tokens, wanted.max(1))?;
        let ran = self.binding.run(&mut self.session);
        self.lock().adapters.release();
        ran?;
        Ok(&self.logits.as_slice()[..wanted * self.vocab])
    }

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
        self.binding.output(c"logits", &self.logits.view([wanted, self.vocab])?)?;
        self.bound = (tokens, wanted);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ForwardPass> {
        // The next step overwrites whatever a panic left.
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build_session(
    runtime: &Runtime,
    bundle: &Bundle,
    threads: usize,
    step: &Arc<Mutex<ForwardPass>>,
) -> Result<Session, SessionError> {
    let operators = operators::domain(step.clone(), threads)?;
    let builder = Session::builder(&runtime.environment)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Level3).map_err(ort::Error::from)?;
    let builder = builder.with_intra_threads(threads).map_err(ort::Error::from)?;
    let builder = builder.with_inter_threads(1).map_err(ort::Error::from)?;
    // A memory pattern would be kept for every pair of sizes that ever occurred, which are thousands.
    let builder = builder.with_memory_pattern(false).map_err(ort::Error::from)?;
    let mut builder = builder.with_operators(operators).map_err(ort::Error::from)?;
    // ONNX Runtime registers the operator domains of all sessions in one table without a lock. If the first two
    // sessions of a process were opened concurrently, one would fail.
    static OPENING: Mutex<()> = Mutex::new(());
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = builder.commit_from_file(bundle.graph());
    opened.map_err(|source| SessionError::Open { bundle: bundle.dir.clone(), source })
}
