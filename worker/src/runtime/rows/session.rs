//! The session over rows.
#![allow(unsafe_code)] // Tensors over memory of the device, by address; the blocks say who owns it.

use std::{
    collections::HashMap,
    ffi::CString,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ort::session::{RunOptions, Session};
use slm_convert::{
    architecture::{Architecture, Layer},
    bundle::Bundle,
    graph::{Activations, Form, rows as names, rows::Position},
};

use super::{
    bank::{Bank, element_bytes, encoded},
    cache::{Appended, Cache, Side, c_string},
    inputs::{Inputs, Places, mask},
    plan::{self, Run},
};
use crate::{
    adapters::AdapterTable,
    runtime::{
        backend::{Backend, Chunk, Geometry, LogitsRequest, SessionConfig, SessionError, TOKENS_MAX},
        binding::{Binding, Buffer, Element, MemoryInfo, Value},
        device::{Device, DeviceError, Memory},
        top::{Top, TopRows, work_bytes},
    },
};

/// Bound on the kept bindings.
const BINDINGS_MAX: usize = 256;
/// Runs of one size of which one is captured, with some to spare: ONNX Runtime captures the third.
const CAPTURE_RUNS: usize = 6;

/// Bytes of the keys and values of one sequence.
pub(crate) fn row_bytes(model: &Architecture, activations: Activations, positions: usize) -> usize {
    let attentions = model.layers.iter().filter_map(Layer::attention);
    let heads = attentions.map(|attention| 2 * attention.kv_size()).sum::<usize>();
    heads * positions * element_bytes(activations)
}

/// Sizes of a run: those of its tensors, and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sizes {
    first_row: usize,
    rows: usize,
    tokens: usize,
    wanted: usize,
    /// First row of its logits.
    logits: usize,
    /// Bound on the positions of its rows.
    total: usize,
    /// Whether any row has an adapter: runs without launch less, which a captured graph keeps.
    adapters: bool,
    /// Whether other runs have the same sizes, so that it is worth capturing.
    recurs: bool,
}

/// A binding for runs of some sizes.
struct Bound {
    binding: Binding,
    options: Option<RunOptions>,
    /// Runs so far.
    runs: usize,
    /// An input of the host, so it has an address of its own.
    _total: Buffer<i32>,
}

/// Where a row of logits is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Row in the device's memory.
    on_device: usize,
    /// Whether the host has it, too.
    on_host: bool,
    /// Run and row of its candidates.
    top: Option<(usize, usize)>,
}

/// An open decoder over rows.
pub(crate) struct RowsSession {
    // First, because bindings must be dropped before the session and the memory that they point to.
    bindings: HashMap<Sizes, Bound>,
    session: Session,
    device: Arc<dyn Device>,
    memory_info: MemoryInfo,
    form: Form,
    activations: Activations,
    geometry: Geometry,
    positions: Vec<Position>,
    /// 0, 1, 2 and so on.
    key_positions: Memory,
    cache: Cache,
    ropes: Vec<(CString, Memory, usize)>,
    bank: Arc<Bank>,
    /// Tells the operator whether any row of a run has an adapter.
    adapters: Arc<AtomicBool>,
    /// Masks of the forms that have no operator for the bank.
    masks: Vec<(usize, Memory)>,
    input_places: Places,
    inputs: Memory,
    device_logits: Memory,
    // Before the logits, which it pins.
    _pinned: Option<Box<dyn Send>>,
    logits: Buffer<f32>,
    /// Of each row of logits of the last step, in the order of its chunks: where it is.
    places: Vec<Place>,
    /// Candidates of the rows of each run.
    tops: Vec<TopRows>,
    work: Memory,
    /// Positions of each row that hold something.
    lengths: Vec<usize>,
    table: Arc<AdapterTable>,
    /// Whether runs of answers are captured as CUDA graphs.
    captures: bool,
    captured: i32,
}

impl RowsSession {
    /// Wraps the opened graph of `bundle`, whose memory is on `device`.
    pub(crate) fn new(
        session: Session,
        bundle: &Bundle,
        config: SessionConfig,
        (device, captures): (Arc<dyn Device>, bool),
        (bank, adapters): (Arc<Bank>, Arc<AtomicBool>),
        table: Arc<AdapterTable>,
    ) -> Result<Self, SessionError> {
        let (model, flavour) = (&bundle.info.architecture, bundle.info.flavour);
        let activations = flavour.activations;
        if config.context_length > model.context_length {
            return Err(SessionError::ContextLength { asked: config.context_length, most: model.context_length });
        }
        let geometry = Geometry {
            context_length: config.context_length,
            page: config.context_length,
            pages: config.pages,
            logits: config.logits,
            vocab_size: model.vocab_size,
            states: 0,
            shares_pages: false,
            drafts: false,
        };
        let input_places = Places::new(config.pages);
        // Runs of answers have theirs at the beginning, whatever rows they are of; prompts have theirs behind.
        let logits_rows = config.pages + config.logits + 1;
        let zeroed = |bytes, what| Memory::zeroed(&device, bytes, what);
        let units = bank.units;
        let widths = if flavour.form == Form::Gqa { Vec::new() } else { names::mask_widths(model) };
        let masks = widths
            .into_iter()
            .map(|linears| Ok((linears, zeroed(config.pages * units * linears, "the masks of adapters")?)));
        let logits = Buffer::filled(config.logits.max(1) * model.vocab_size, f32::NAN);
        let bytes = logits_rows * model.vocab_size * size_of::<f32>();
        Ok(Self {
            bindings: HashMap::new(),
            session,
            memory_info: device.memory_info()?,
            form: flavour.form,
            activations,
            geometry,
            positions: names::positions(flavour.form, model),
            key_positions: key_positions(&device, config.context_length)?,
            cache: Cache::new(&device, model, flavour, &geometry, input_places.tokens_max())?,
            ropes: ropes(&device, model, activations, config.context_length)?,
            bank,
            adapters,
            masks: masks.collect::<Result<_, DeviceError>>()?,
            input_places,
            inputs: zeroed(input_places.bytes(), "inputs")?,
            device_logits: zeroed(bytes, "logits")?,
            // SAFETY: the buffer is dropped after the guard (field order).
            _pinned: unsafe { device.pin(logits.address(), size_of_val(logits.as_slice())) },
            logits,
            places: Vec::new(),
            tops: Vec::new(),
            work: zeroed(work_bytes(logits_rows), "candidates")?,
            lengths: vec![0; config.pages],
            table,
            captures,
            captured: 0,
            device,
        })
    }

    /// Runs a prompt and a token, so that the provider has loaded its libraries before the first request.
    pub(crate) fn warm_up(&mut self) -> Result<(), SessionError> {
        let tokens = [0; 2];
        for (past, count) in [(0, 2), (2, 1)] {
            let logits = LogitsRequest::Last;
            if past + count <= self.geometry.context_length {
                let tokens = &tokens[..count];
                self.step(&[Chunk {
                    tokens,
                    past,
                    pages: &[0],
                    state: None,
                    adapter: None,
                    logits,
                    candidates: None,
                }])?;
            }
        }
        self.lengths.fill(0);
        Ok(())
    }

    fn run(
        &mut self,
        run: &Run,
        chunks: &[Chunk<'_>],
        places: &[usize],
        prompts: usize,
    ) -> Result<usize, SessionError> {
        let (first_row, rows, tokens) = match run {
            Run::Decode { rows, .. } => (0, *rows, 1),
            Run::Prefill { chunks, row, tokens, .. } => (*row, chunks.len(), *tokens),
        };
        let members: &[usize] = match run {
            Run::Decode { chunks, .. } | Run::Prefill { chunks, .. } => chunks,
        };
        let mut inputs = Inputs::new(self.input_places, tokens);
        let last = self.geometry.context_length - 1;
        let (mut idle, mut adapters, mut masked) = (vec![true; rows], false, vec![None; rows]);
        for chunk in members.iter().map(|&index| &chunks[index]) {
            let row = plan::row(chunk) - first_row;
            idle[row] = false;
            inputs.row(row, chunk.past, chunk.tokens);
            for token in chunk.tokens.len() - chunk.logits.count(chunk.tokens.len())..chunk.tokens.len() {
                inputs.want(row, token);
            }
            let adapter = chunk.adapter.and_then(|slot| self.table.get(slot));
            if let Some(units) = adapter.and_then(|adapter| adapter.units()) {
                inputs.adapter(row, &units);
                adapters = true;
                masked[row] = Some(units);
            }
        }
        let mut ends: Vec<usize> = members.iter().map(|&index| chunks[index].past + tokens).collect();
        for (row, _) in idle.iter().enumerate().filter(|(_, idle)| **idle) {
            // It writes where its next token will, and attends as far.
            let past = self.lengths[first_row + row].min(last);
            inputs.row(row, past, &[]);
            ends.push(past + 1);
        }
        let decode = matches!(run, Run::Decode { .. });
        let positions = self.geometry.context_length;
        let sizes = Sizes {
            first_row,
            rows,
            tokens,
            wanted: if decode { rows } else { inputs.wanted().max(1) },
            logits: if decode { 0 } else { self.geometry.pages + prompts },
            total: if self.form == Form::Gqa { plan::bound(run, &ends, positions) } else { 0 },
            adapters,
            recurs: decode,
        };
        // SAFETY: no run is under way, and nobody else has this memory.
        unsafe { self.inputs.write(0, inputs.bytes())? };
        for (linears, memory) in &self.masks {
            // SAFETY: as above.
            unsafe { memory.write(0, &mask(&masked, self.bank.units, *linears))? };
        }
        self.adapters.store(adapters, Ordering::Relaxed);
        self.execute(sizes)?;
        for chunk in members.iter().map(|&index| &chunks[index]) {
            let (row, past, count) = (plan::row(chunk), chunk.past, chunk.tokens.len());
            self.cache.append(tokens, Appended { row, in_run: row - first_row, past, count })?;
            self.lengths[row] = past + count;
        }
        self.take_in(sizes.logits, members, chunks, places)?;
        Ok(if decode { 0 } else { inputs.wanted() })
    }

    fn execute(&mut self, sizes: Sizes) -> Result<(), SessionError> {
        if !self.bindings.contains_key(&sizes) {
            if self.bindings.len() >= BINDINGS_MAX {
                self.bindings.retain(|sizes, _| sizes.recurs);
            }
            let bound = self.bind(sizes)?;
            self.bindings.insert(sizes, bound);
        }
        let Self { bindings, session, device, .. } = self;
        let Some(Bound { binding, options, runs, .. }) = bindings.get_mut(&sizes) else { return Ok(()) };
        let _alone = if sizes.recurs && *runs < CAPTURE_RUNS { device.exclusive() } else { None };
        *runs += 1;
        Ok(binding.run(session, options.as_ref())?)
    }

    /// Notes where the logits of a run are, from row `first` of the device on, and selects candidates where they suffice.
    fn take_in(
        &mut self,
        first: usize,
        members: &[usize],
        chunks: &[Chunk<'_>],
        places: &[usize],
    ) -> Result<(), DeviceError> {
        let mut temperatures = Vec::new();
        let mut any = false;
        for &index in members {
            let chunk = &chunks[index];
            for row in 0..chunk.logits.count(chunk.tokens.len()) {
                let top = chunk.candidates.filter(|_| self.device.selects());
                let top = top.map(|_| (self.tops.len(), temperatures.len()));
                let on_device = first + temperatures.len();
                self.places[places[index] + row] = Place { on_device, on_host: false, top };
                temperatures.push(chunk.candidates.unwrap_or(1.0));
                any |= top.is_some();
            }
        }
        if any {
            let vocab = self.geometry.vocab_size;
            let bytes = vocab * size_of::<f32>();
            let logits = self.device_logits.address(first * bytes, temperatures.len() * bytes);
            // SAFETY: the run has ended, and nobody else has this memory.
            self.tops.push(unsafe { self.device.top(logits, vocab, &temperatures, &self.work)? });
        }
        Ok(())
    }

    /// Copies rows of logits to the host, neighbours on the device together.
    fn fetch(&mut self, rows: Range<usize>) -> Result<(), DeviceError> {
        let row = self.geometry.vocab_size;
        let host = self.logits.as_mut_slice();
        let mut next = rows.start;
        while next < rows.end {
            let first = next;
            let Place { on_device, on_host, .. } = self.places[first];
            next += 1;
            if on_host {
                continue;
            }
            while next < rows.end
                && self.places[next].on_device == on_device + (next - first)
                && !self.places[next].on_host
            {
                next += 1;
            }
            let part = bytemuck::cast_slice_mut(&mut host[first * row..next * row]);
            // SAFETY: the run has ended, and nobody else has this memory.
            unsafe { self.device_logits.read(on_device * row * size_of::<f32>(), part)? };
            self.places[first..next].iter_mut().for_each(|place| place.on_host = true);
        }
        Ok(())
    }

    fn bind(&mut self, sizes: Sizes) -> Result<Bound, SessionError> {
        let mut total = Buffer::filled(1, 0);
        total.as_mut_slice()[0] = sizes.total as i32;
        let mut binding = Binding::new(&self.session)?;
        self.bind_small(&mut binding, sizes)?;
        self.bind_positions(&mut binding, sizes, &total)?;
        match self.activations {
            Activations::F32 => self.bind_floats::<f32>(&mut binding, sizes)?,
            Activations::F16 => self.bind_floats::<half::f16>(&mut binding, sizes)?,
        }
        let options = if self.captures { Some(self.graph_id(sizes.recurs)?) } else { None };
        Ok(Bound { binding, options, runs: 0, _total: total })
    }

    /// Options that name the graph to capture and replay; -1 is none.
    fn graph_id(&mut self, recurs: bool) -> ort::Result<RunOptions> {
        let mut options = RunOptions::new()?;
        let id = if recurs { self.captured } else { -1 };
        self.captured += i32::from(recurs);
        options.set("gpu_graph_id", id.to_string())?;
        Ok(options)
    }

    fn bind_small(&self, binding: &mut Binding, sizes: Sizes) -> Result<(), SessionError> {
        let Sizes { rows, tokens, wanted, .. } = sizes;
        let inputs = &self.inputs;
        binding.input(c"input_ids", &self.view::<i64>(inputs, self.input_places.ids(), &[rows, tokens])?)?;
        binding.input(c"logits_indices", &self.view::<i64>(inputs, self.input_places.logits_indices(), &[wanted])?)?;
        if self.form == Form::Gqa {
            binding.input(c"adapter_units", &self.view::<i32>(inputs, self.input_places.units(), &[rows, 2])?)?;
        }
        for (linears, memory) in &self.masks {
            let name = c_string(names::mask_name(*linears))?;
            binding.input(&name, &self.view::<bool>(memory, 0, &[rows, 1, self.bank.units * linears])?)?;
        }
        let logits = self.view::<f32>(
            &self.device_logits,
            sizes.logits * self.geometry.vocab_size * size_of::<f32>(),
            &[wanted, self.geometry.vocab_size],
        )?;
        binding.output(c"logits", &logits)?;
        Ok(())
    }

    /// Binds the inputs that say where tokens are.
    fn bind_positions(&self, binding: &mut Binding, sizes: Sizes, total: &Buffer<i32>) -> Result<(), SessionError> {
        let Sizes { rows, tokens, .. } = sizes;
        let (inputs, places) = (&self.inputs, self.input_places);
        for position in &self.positions {
            let value = match position {
                Position::Last => self.view::<i32>(inputs, places.seqlens(), &[rows])?,
                Position::Bound => total.view([1])?,
                Position::Past => self.view::<i64>(inputs, places.pasts(), &[rows])?,
                Position::Tokens => self.view::<i64>(inputs, places.positions(), &[rows, tokens])?,
                Position::Keys => self.view::<i64>(&self.key_positions, 0, &[self.geometry.context_length])?,
            };
            binding.input(position.name(), &value)?;
        }
        Ok(())
    }

    fn bind_floats<T: Element>(&self, binding: &mut Binding, sizes: Sizes) -> Result<(), SessionError> {
        let Sizes { first_row, rows, tokens, .. } = sizes;
        let units = self.bank.units;
        let positions = self.geometry.context_length;
        for Side { names: [takes, gives], memory, fresh, heads, width } in &self.cache.sides {
            let offset = first_row * heads * positions * width * size_of::<T>();
            let value = self.view::<T>(memory, offset, &[rows, *heads, positions, *width])?;
            binding.input(takes, &value)?;
            match fresh {
                Some(fresh) => binding.output(gives, &self.view::<T>(fresh, 0, &[rows, *heads, tokens, *width])?)?,
                None => binding.output(gives, &value)?,
            }
        }
        for (name, memory, half) in &self.ropes {
            binding.input(name, &self.view::<T>(memory, 0, &[positions, *half])?)?;
        }
        for pair in &self.bank.pairs {
            let sides = names::bank_names(pair.layer, pair.projection);
            for ((name, memory), width) in sides.into_iter().zip([&pair.a, &pair.b]).zip(pair.widths) {
                binding.input(&c_string(name)?, &self.view::<T>(memory, 0, &[units * pair.linears, width])?)?;
            }
        }
        Ok(())
    }

    /// A tensor over memory of the backend.
    fn view<T: Element>(&self, memory: &Memory, offset: usize, shape: &[usize]) -> ort::Result<Value> {
        let bytes = shape.iter().product::<usize>() * size_of::<T>();
        let address = memory.address(offset, bytes);
        // SAFETY: the bytes are within the memory (checked), which outlives the bindings (field order, and the bank is held).
        unsafe { Value::over::<T>(&self.memory_info, std::ptr::with_exposed_provenance_mut(address), shape) }
    }
}

impl Backend for RowsSession {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<usize, SessionError> {
        let (_, wanted) = self.geometry.check(chunks)?;
        let runs = plan::runs(chunks, self.geometry.pages, self.geometry.context_length)?;
        let mut rows = 0;
        let mut place = |chunk: &Chunk<'_>| {
            let first = rows;
            rows += LogitsRequest::count(chunk.logits, chunk.tokens.len());
            first
        };
        let places: Vec<usize> = chunks.iter().map(&mut place).collect();
        self.places.clear();
        self.places.resize(wanted, Place { on_device: 0, on_host: false, top: None });
        self.tops.clear();
        let mut prompts = 0;
        for run in &runs {
            prompts += self.run(run, chunks, &places, prompts)?;
        }
        Ok(wanted)
    }

    fn top(&self, row: usize) -> Option<Top<'_>> {
        let (run, row) = self.places.get(row)?.top?;
        self.tops.get(run)?.row(row)
    }

    fn row(&mut self, row: usize) -> Result<&[f32], SessionError> {
        self.fetch(row..row + 1)?;
        let vocab = self.geometry.vocab_size;
        Ok(&self.logits.as_slice()[row * vocab..(row + 1) * vocab])
    }

    fn rows(&mut self) -> Result<&[f32], SessionError> {
        self.fetch(0..self.places.len())?;
        Ok(&self.logits.as_slice()[..self.places.len() * self.geometry.vocab_size])
    }
}

/// Positions of keys, for the served context.
fn key_positions(device: &Arc<dyn Device>, context_length: usize) -> Result<Memory, DeviceError> {
    let positions: Vec<i64> = (0..context_length as i64).collect();
    let memory = Memory::zeroed(device, size_of_val(positions.as_slice()), "positions")?;
    // SAFETY: just allocated.
    unsafe { memory.write(0, bytemuck::cast_slice(&positions))? };
    Ok(memory)
}

/// Tables of the rotary embeddings, for the served context.
fn ropes(
    device: &Arc<dyn Device>,
    model: &Architecture,
    activations: Activations,
    context_length: usize,
) -> Result<Vec<(CString, Memory, usize)>, SessionError> {
    let mut ropes = Vec::new();
    for (index, rope) in model.ropes.iter().enumerate() {
        let tables = rope.tables(context_length);
        for (name, values) in names::rope_names(index).into_iter().zip([&tables.cos, &tables.sin]) {
            let bytes = encoded(values, activations);
            let memory = Memory::zeroed(device, bytes.len(), "rotary tables")?;
            // SAFETY: just allocated.
            unsafe { memory.write(0, &bytes)? };
            ropes.push((c_string(name)?, memory, rope.dim / 2));
        }
    }
    Ok(ropes)
}

/// Tokens of a run are at most those of a step, padded.
const _: () = assert!(TOKENS_MAX.is_power_of_two());
