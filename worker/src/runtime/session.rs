//! One decoder: new tokens of any number of sequences go through it together, prompts and answers alike.
//!
//! The session has the memory of keys and values, in pages; who gets which page is decided elsewhere (`engine::cache`).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ort::session::{Session, builder::GraphOptimizationLevel};
use slm_convert::{bundle::Bundle, config::ModelConfig};
use slm_kernels::attention::{PAGE, Shape};

use super::{
    binding::{Binding, Buffer},
    library::Runtime,
    memory::KvMemory,
    operators,
    step::{Chunk, ChunkError, Step},
};
use crate::adapters::AdapterTable;

/// How a session is laid out.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// Positions of a sequence at most.
    pub context_length: usize,
    /// Pages of keys and values, of [`PAGE`] positions each.
    pub pages: usize,
    /// Rows of logits that are wanted of a step at most.
    pub logits: usize,
    /// Threads that a step runs on, the caller's included.
    pub threads: usize,
}

impl SessionConfig {
    /// Pages that so many sequences of so many positions need.
    pub fn pages_for(sequences: usize, positions: usize) -> usize {
        sequences * positions.div_ceil(PAGE)
    }
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
    /// More rows of logits than there is memory for.
    #[error(
        "{asked} rows of logits are wanted of a step; the session was opened for {most}: want fewer, or open it for more"
    )]
    Logits {
        /// Wanted.
        asked: usize,
        /// There are.
        most: usize,
    },
    /// A step of more tokens than a step may have.
    #[error("a step of {0} tokens; it may have 1 to {TOKENS_MAX}")]
    Tokens(usize),
    /// A chunk is not what it must be.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// Tokens of a step at most, of all its chunks together; bounds the activations' memory.
pub const TOKENS_MAX: usize = 512;

/// Bytes that a page of keys and values takes in all layers together.
pub fn page_bytes(bundle: &Bundle) -> usize {
    let model = &bundle.info.config;
    model.layers * KvMemory::element_bytes(bundle.info.precision) * shape(model).page_elements()
}

fn shape(model: &ModelConfig) -> Shape {
    Shape::new(model.heads, model.kv_heads, model.head_dim)
}

/// A model that steps.
pub struct DecoderSession {
    // The binding first: it must go before the session and the memory that it points to.
    binding: Binding,
    session: Session,
    step: Arc<Mutex<Step>>,
    ids: Buffer<i64>,
    wanted: Buffer<i64>,
    logits: Buffer<f32>,
    /// Tokens and wanted rows that are bound.
    bound: (usize, usize),
    vocab: usize,
    config: SessionConfig,
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
        let kv = KvMemory::new(shape(model), config.pages, model.layers, bundle.info.precision);
        let step = Arc::new(Mutex::new(Step::new(kv, table)));
        let session = build_session(runtime, bundle, config.threads, &step)?;
        Ok(Self {
            binding: Binding::new(&session)?,
            session,
            step,
            ids: Buffer::filled(TOKENS_MAX, 0),
            wanted: Buffer::filled(TOKENS_MAX, 0),
            // Written to now: what a process takes should be seen when it starts, not with its largest step.
            logits: Buffer::filled(config.logits.max(1) * model.vocab_size, f32::NAN),
            bound: (0, 0),
            vocab: model.vocab_size,
            config,
        })
    }

    /// How it is laid out.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Bytes of the memory for logits.
    pub fn logits_bytes(&self) -> usize {
        size_of_val(self.logits.as_slice())
    }

    /// Length of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.vocab
    }

    /// Takes the new tokens of `chunks` in, all at once. Returns a row of logits for each token for which they are
    /// wanted, in order. After an error the chunks' new positions hold anything.
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
        self.lock().sharing.release();
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

    fn lock(&self) -> MutexGuard<'_, Step> {
        // What a panic left is made anew before the next step.
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build_session(
    runtime: &Runtime,
    bundle: &Bundle,
    threads: usize,
    step: &Arc<Mutex<Step>>,
) -> Result<Session, SessionError> {
    let operators = operators::domain(step.clone(), threads)?;
    let builder = Session::builder(&runtime.environment)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Level3).map_err(ort::Error::from)?;
    let builder = builder.with_intra_threads(threads).map_err(ort::Error::from)?;
    let builder = builder.with_inter_threads(1).map_err(ort::Error::from)?;
    // A plan of memory is kept for every pair of sizes that ever came: steps have thousands.
    let builder = builder.with_memory_pattern(false).map_err(ort::Error::from)?;
    let mut builder = builder.with_operators(operators).map_err(ort::Error::from)?;
    // ONNX Runtime keeps the domains of all sessions in one table, and looks and inserts without a lock: of two first
    // sessions of a process that open at once, one would be refused.
    static OPENING: Mutex<()> = Mutex::new(());
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = builder.commit_from_file(bundle.graph());
    opened.map_err(|source| SessionError::Open { bundle: bundle.dir.clone(), source })
}
