//! Whole texts, in one forward pass without padding, to the states of their tokens.
//!
//! Linear layers see one batch of tokens, attention sees each text by itself. Keys and values are needed within a layer only, so
//! all layers use the same pages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::session::Session;
use slm_convert::{
    architecture::{Encoder, Layer, Rows},
    bundle::Bundle,
};
use slm_kernels::attention::PAGE;

use super::{
    forward_pass::ForwardPass,
    memory::KvMemory,
    session::{build_session, shape},
    states::StateMemory,
};
use crate::{
    adapters::AdapterTable,
    runtime::{
        assignment::{self, Assignment},
        backend::{Chunk, LogitsRequest, SessionError},
        binding::{Binding, Buffer},
        library::Runtime,
    },
};

/// Bounds of an encoder.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Bound on the tokens of a text.
    pub context_length: usize,
    /// Bound on the tokens of a pass; at least that of a text.
    pub tokens: usize,
    /// Bound on the texts of a pass.
    pub texts: usize,
    /// Threads of a pass, including the caller's.
    pub threads: usize,
}

/// A text of a pass.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its tokens; at least one.
    pub tokens: &'a [u32],
    /// Token types, where the model has several; without any, all are of the first.
    pub types: &'a [u8],
    /// Adapter slot in the table.
    pub adapter: Option<usize>,
}

/// An open encoder.
pub struct EncoderSession {
    // First, because it must be dropped before the session and the memory that it points to.
    binding: Binding,
    session: Session,
    step: Arc<Mutex<ForwardPass>>,
    ids: Buffer<i64>,
    /// Rows of position embeddings, if the model has them, the row of the first position, and how many a token type has.
    positions: Option<(Buffer<i64>, usize, usize)>,
    /// Token types.
    types: usize,
    states: Buffer<f32>,
    /// Bound number of tokens.
    bound: usize,
    width: usize,
    config: EncoderConfig,
    /// Bytes of keys and values.
    page_bytes: usize,
}

impl EncoderSession {
    /// Opens the bundle's graph. Adapters are looked up in `table` by the slots of each pass.
    pub(crate) fn open(
        runtime: &Runtime,
        bundle: &Bundle,
        config: EncoderConfig,
        table: Arc<AdapterTable>,
    ) -> Result<Self, SessionError> {
        let model = &bundle.info.architecture;
        if config.context_length > model.context_length {
            return Err(SessionError::ContextLength { asked: config.context_length, most: model.context_length });
        }
        let shape = model.layers.iter().find_map(Layer::attention).map(shape);
        // The last page of each text may be used in part.
        let pages = config.tokens.div_ceil(PAGE) + config.texts;
        let precision = bundle.info.flavour.precision;
        let kv = KvMemory::new(&[shape], pages, precision);
        let page_bytes = pages * shape.map_or(0, |shape| shape.page_elements()) * KvMemory::element_bytes(precision);
        let ropes = model.ropes.iter().map(|rope| rope.tables(config.context_length)).collect();
        let shapes: Vec<_> = shape.into_iter().collect();
        let pass = ForwardPass::new(&shapes, (kv, StateMemory::new(&[0], 0)), ropes, table);
        let pass = if model.encoder.is_some() { pass.bidirectional() } else { pass };
        let step = Arc::new(Mutex::new(pass));
        let session = build_session(runtime, bundle, config.threads, &step)?;
        let rows = model.encoder.as_ref().and_then(|encoder| encoder.positions.as_ref());
        Ok(Self {
            binding: Binding::new(&session)?,
            session,
            step,
            ids: Buffer::filled(config.tokens, 0),
            positions: rows.map(|Rows { first, count, .. }| (Buffer::filled(config.tokens, 0), *first, *count)),
            types: model.encoder.as_ref().map_or(1, Encoder::types),
            states: Buffer::filled(config.tokens * model.hidden_size, f32::NAN),
            bound: 0,
            width: model.hidden_size,
            config,
            page_bytes,
        })
    }

    /// Its bounds.
    pub fn config(&self) -> EncoderConfig {
        self.config
    }

    /// Floats of a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of keys and values, and of states.
    pub fn bytes(&self) -> (usize, usize) {
        (self.page_bytes, self.config.tokens * self.width * size_of::<f32>())
    }

    /// Number of the graph's nodes that each execution provider computes.
    pub(crate) fn nodes(&self) -> ort::Result<Assignment> {
        assignment::of(&self.session)
    }

    /// The states of all tokens, a row for each, text after text.
    ///
    /// # Errors
    /// The texts are beyond the bounds, or ONNX Runtime failed.
    pub fn states(&mut self, texts: &[Text<'_>]) -> Result<&[f32], SessionError> {
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        let longest = texts.iter().map(|text| text.tokens.len()).max().unwrap_or(0);
        if longest > self.config.context_length {
            return Err(SessionError::ContextLength { asked: longest, most: self.config.context_length });
        }
        if tokens == 0 || tokens > self.config.tokens || texts.len() > self.config.texts {
            return Err(SessionError::Texts { tokens, texts: texts.len() });
        }
        let all: Vec<u32> = (0..self.pages(texts) as u32).collect();
        let mut rest = all.as_slice();
        let mut chunks = Vec::with_capacity(texts.len());
        for Text { tokens, adapter, .. } in texts {
            let (pages, others) = rest.split_at(tokens.len().div_ceil(PAGE));
            rest = others;
            chunks.push(Chunk {
                tokens,
                past: 0,
                pages,
                state: None,
                adapter: *adapter,
                logits: LogitsRequest::Nothing,
                candidates: None,
            });
        }
        self.lock().prepare(&chunks, self.config.threads)?;
        self.fill(texts);
        self.bind(tokens)?;
        let ran = self.binding.run(&mut self.session, None);
        self.lock().adapters.release();
        ran?;
        Ok(&self.states.as_slice()[..tokens * self.width])
    }

    fn pages(&self, texts: &[Text<'_>]) -> usize {
        texts.iter().map(|text| text.tokens.len().div_ceil(PAGE)).sum()
    }

    /// Writes the graph's inputs.
    fn fill(&mut self, texts: &[Text<'_>]) {
        let ids = texts.iter().flat_map(|text| text.tokens);
        self.ids.as_mut_slice().iter_mut().zip(ids).for_each(|(id, &token)| *id = i64::from(token));
        if let Some((positions, first, count)) = &mut self.positions {
            // A token type that the model does not have would be a row of nothing.
            let last = self.types - 1;
            let of_type = |kind: u8| last.min(kind.into()) * *count;
            let rows = texts.iter().flat_map(|text| {
                let types = text.types.iter().copied().chain(std::iter::repeat(0));
                (*first..).zip(types).take(text.tokens.len()).map(|(row, kind)| row + of_type(kind))
            });
            positions.as_mut_slice().iter_mut().zip(rows).for_each(|(position, row)| *position = row as i64);
        }
    }

    fn bind(&mut self, tokens: usize) -> Result<(), SessionError> {
        if self.bound == tokens {
            return Ok(());
        }
        self.bound = 0;
        self.binding.input(c"input_ids", &self.ids.view([tokens])?)?;
        if let Some((positions, ..)) = &self.positions {
            self.binding.input(c"positions", &positions.view([tokens])?)?;
        }
        self.binding.output(c"states", &self.states.view([tokens, self.width])?)?;
        self.bound = tokens;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ForwardPass> {
        // The next pass overwrites whatever a panic left.
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
