//! Random layers, and what they must give, in f64 and without a line of the crate's arithmetic.

use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use slm_kernels::{
    Activations, Adapters, BLOCK, Block, Format, Level, Linear, Packed, Rows, Start,
    lora::{AdapterRows, Inputs, Layout, Module, Pair, hidden},
};

pub(crate) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A level that this CPU cannot run is skipped, and the log says so.
pub(crate) fn levels() -> Vec<Level> {
    for level in Level::ALL.into_iter().filter(|level| !level.is_available()) {
        println!("skipped: this CPU has no {level:?}");
    }
    Level::available().collect()
}

/// A matrix as it was before it was packed.
pub(crate) struct Matrix {
    pub(crate) packed: Packed,
    /// `[outputs][inputs]`
    pub(crate) weights: Vec<f64>,
}

impl Matrix {
    pub(crate) fn random(format: Format, inputs: usize, outputs: usize, random: &mut ChaCha8Rng) -> Self {
        let mut weights = vec![0.0; inputs * outputs];
        let mut group = Block::new(0.0, 0.0, [0; BLOCK]);
        let packed = Packed::pack(format, inputs, outputs, |column, index| {
            let mut b = Self::block(format, random);
            // Blocks of a group share scale and minimum.
            if has_factors(format) && index % 8 != 0 {
                (b.scale, b.offset) = (group.scale, group.offset);
            }
            group = b;
            for (i, &q) in b.quants.iter().enumerate().take(BLOCK.min(inputs - index * BLOCK)) {
                weights[column * inputs + index * BLOCK + i] = Self::weight(format, &b, i, q);
            }
            b
        });
        Self { packed, weights }
    }

    fn block(format: Format, random: &mut ChaCha8Rng) -> Block {
        let widest = match format {
            Format::Q4Scale32 | Format::Q4Min32 | Format::Q4K => 15,
            Format::Q6Scale32 | Format::Q5K | Format::Q6K => 63,
            Format::Q8Scale32 => 255,
        };
        let mut quants = [0; BLOCK];
        // Some blocks at the ends of the range, where sums are largest.
        match random.random_range(0..8) {
            0 => quants.fill(widest),
            1 => quants.fill(0),
            _ => quants.fill_with(|| random.random_range(0..=widest)),
        }
        let narrow = |x: f32| f16::from_f32_const(x).to_f32_const();
        let offset = narrow(random.random_range(-0.2..0.1));
        let block = Block::new(narrow(random.random_range(-0.05..0.05)), offset, quants);
        match (has_factors(format), random.random_range(0..8)) {
            (false, _) => block,
            // At the ends of the range, where products are largest.
            (true, 0) => Block { factors: [-128; 2], offset_factor: 255, ..block },
            (true, 1) => Block { factors: [127; 2], offset_factor: 0, ..block },
            (true, _) => Block { factors: random.random(), offset_factor: random.random(), ..block },
        }
    }

    /// The weight of input `i` of a block.
    fn weight(format: Format, block: &Block, i: usize, quant: u8) -> f64 {
        let (scale, offset, quant) = (f64::from(block.scale), f64::from(block.offset), f64::from(quant));
        match format {
            Format::Q4Scale32 => scale * (quant - 8.0),
            Format::Q4Min32 => scale * quant + offset,
            Format::Q6Scale32 => scale * (quant - 32.0),
            Format::Q8Scale32 => scale * (quant - 128.0),
            Format::Q4K | Format::Q5K => {
                let factor = f64::from(block.factors[0].cast_unsigned());
                scale * factor * quant + offset * f64::from(block.offset_factor)
            }
            Format::Q6K => scale * f64::from(block.factors[i / 16]) * (quant - 32.0),
        }
    }

    /// One output, from dequantised weights and `x` as given, and the sum of the absolute values of its terms.
    pub(crate) fn output(&self, column: usize, x: &[f64]) -> (f64, f64) {
        let terms = || self.weights[column * x.len()..][..x.len()].iter().zip(x).map(|(w, x)| w * x);
        (terms().sum(), terms().map(f64::abs).sum())
    }
}

fn has_factors(format: Format) -> bool {
    matches!(format, Format::Q4K | Format::Q5K | Format::Q6K)
}

/// `x` after its quantisation, and the scale of each input.
pub(crate) fn quantized(x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let largest = |x: &[f32]| x.iter().fold(0f32, |most, x| most.max(x.abs()));
    let row = largest(x);
    let unit = row / (127.0 * 32767.0);
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for part in x.chunks(BLOCK) {
        let enough = if row == 0.0 { 0.0 } else { largest(part).mul_add(32767.0 / row, 0.5).round_ties_even() };
        let multiplier = enough.clamp(1.0, 32767.0);
        for &x in part {
            let q = if row == 0.0 { 0.0 } else { (x * (1.0 / (unit * multiplier))).round_ties_even() };
            let scale = f64::from(unit) * f64::from(multiplier);
            values.push(scale * f64::from(q));
            scales.push(scale);
        }
    }
    (values, scales)
}

/// Rows of numbers of very different sizes; some blocks are zero.
pub(crate) fn rows(count: usize, inputs: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut x = vec![0.0; count * inputs];
    for part in x.chunks_mut(32) {
        let size = [0.0, 1e-3, 1.0, 40.0][random.random_range(0..4)];
        part.fill_with(|| size * random.random_range(-1.0..1.0));
    }
    // One row at the ends of the range, where sums are largest.
    if count > 2 {
        x[inputs..2 * inputs].fill(1.0);
    }
    x
}

/// An adapter as it was before it was packed.
pub(crate) struct OwnedAdapter {
    layout: Layout,
    packed: Vec<f32>,
    in_8_bits: bool,
    outputs: usize,
    modules: [OwnedModule; 2],
}

struct OwnedModule {
    module: Module,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// Of matrices: no number is larger.
const LARGEST: f64 = 0.3;
const FACTOR: f32 = 0.5;

impl OwnedAdapter {
    /// Two modules of different ranks over the columns; the last few columns belong to none.
    pub(crate) fn random(
        in_8_bits: bool,
        ranks: [usize; 2],
        inputs: usize,
        outputs: usize,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let first = outputs / 3;
        let columns = [(0, first), (first, outputs - first - outputs / 7)];
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-0.3..0.3)).collect() };
        let mut module = |rank, (column_begin, columns)| {
            let (a, b) = (numbers(rank * inputs), numbers(rank * columns));
            OwnedModule { module: Module { rank, column_begin, columns }, a, b }
        };
        let modules = [module(ranks[0], columns[0]), module(ranks[1], columns[1])];
        let pairs = modules.each_ref().map(|OwnedModule { a, b, .. }| Pair { a, b, factor: FACTOR });
        let layout = if in_8_bits { Layout::in_8_bits } else { Layout::in_32_bits }(
            inputs,
            outputs,
            &modules.each_ref().map(|owned| owned.module),
        );
        let mut packed = vec![0.0; layout.bytes() / size_of::<f32>()];
        assert_eq!(layout.pack(&pairs, bytemuck::cast_slice_mut(&mut packed)), Ok(()));
        Self { layout, packed, in_8_bits, outputs, modules }
    }

    /// The adapter's contribution to each column of a row, and the tolerance.
    pub(crate) fn adds(&self, x: &[f32]) -> (Vec<f64>, f64) {
        let (rounded, scales) = quantized(x);
        let (mut sums, mut bound) = (vec![0.0; self.outputs], 0.0f64);
        for OwnedModule { module, a, b } in &self.modules {
            // Of each rank: its value, its size, how far it may be off.
            let h: Vec<(f64, f64, f64)> = (0..module.rank)
                .map(|r| {
                    let terms =
                        || a[r * x.len()..][..x.len()].iter().zip(x).map(|(&a, &x)| f64::from(a) * f64::from(x));
                    let size: f64 = terms().map(f64::abs).sum();
                    let mut off = f64::from(f32::EPSILON) * (32.0 + x.len() as f64) * size;
                    if self.in_8_bits {
                        let half_a_step = LARGEST / 127.0 / 2.0 * 1.01;
                        off += rounded
                            .iter()
                            .zip(&scales)
                            .map(|(x, s)| half_a_step * x.abs() + LARGEST * 0.504 * s)
                            .sum::<f64>();
                    }
                    (terms().sum(), size, off)
                })
                .collect();
            let mut off: f64 = h.iter().map(|(_, size, off)| LARGEST * (off + size * 1e-6)).sum();
            if self.in_8_bits {
                let most = h.iter().fold(0f64, |most, (h, _, off)| most.max(h.abs() + off));
                off += h
                    .iter()
                    .map(|(h, _, off)| (h.abs() + off) * LARGEST / 127.0 / 2.0 * 1.01 + most * LARGEST / 32767.0)
                    .sum::<f64>();
            }
            bound = bound.max(off * f64::from(FACTOR));
            for n in 0..module.columns {
                let b = &b[n * module.rank..][..module.rank];
                let sum: f64 = h.iter().zip(b).map(|((h, ..), &b)| h * f64::from(b)).sum();
                sums[module.column_begin + n] = sum * f64::from(FACTOR);
            }
        }
        (sums, bound)
    }
}

/// Way to compute the outputs.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) level: Level,
    /// Ranges of columns.
    pub(crate) parts: usize,
}

/// All outputs of `x`, rows whose adapter is `None` having none; `y` is what the outputs are added to.
pub(crate) fn multiply(
    how: How,
    matrix: &Matrix,
    x: &[f32],
    adapters: &[(&OwnedAdapter, Vec<u32>)],
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let (inputs, outputs) = (matrix.packed.weights().inputs(), matrix.packed.weights().outputs());
    let mut activations = Activations::default();
    activations.quantize(how.level, x, inputs);
    let rows = activations.rows();
    let adapter_rows: Vec<AdapterRows<'_>> = adapters
        .iter()
        .map(|(adapter, tokens)| AdapterRows {
            adapter: adapter.layout.adapter(bytemuck::cast_slice(&adapter.packed)),
            tokens,
        })
        .collect();
    let width = adapter_rows.iter().map(|rows| rows.adapter.rank()).max().unwrap_or(0);
    let mut memory = vec![f32::NAN; rows * width];
    let h = Rows::new(&mut memory, width);
    for (rows, (adapter, _)) in adapter_rows.iter().zip(adapters) {
        let x = if adapter.in_8_bits { Inputs::Int8(&activations) } else { Inputs::F32(x) };
        let cut = |part: usize| rows.tokens.len() * part / how.parts;
        for part in 0..how.parts {
            // SAFETY: one thread.
            unsafe { hidden(how.level, &rows.some(cut(part)..cut(part + 1)), x, h) };
        }
    }
    let adapters = (!adapter_rows.is_empty()).then_some(Adapters {
        adapter_rows: &adapter_rows,
        hidden: h,
        ready: &|| {},
        next: &adapter_rows,
    });
    let start = residual.map_or(Start::Zero, Start::Residual);
    let linear = Linear { matrix: matrix.packed.weights().into(), x: &activations, start, adapters };
    let mut y = vec![f32::NAN; rows * outputs];
    for part in 0..how.parts {
        // SAFETY: one thread.
        unsafe { linear.columns(how.level, linear.range(part, how.parts), Rows::new(&mut y, outputs)) };
    }
    y
}
