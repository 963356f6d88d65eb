//! Every path at several row counts, beside what the machine can do: `cargo bench -p slm-kernels [FILTER]`.
//!
//! One thread. Packed come from memory: calls go round over copies that together are larger than the last cache.
//! Of many calls the fastest counts (of long ones, of each of their parts), since what disturbs a machine only ever adds
//! time. GOP/s count a multiplication
//! and an addition as two; GB/s are bytes of packed weights. `% bw` is GB/s of the read bandwidth and `% peak` GOP/s of
//! what the level's own instruction does from registers (not known for plain Rust).
//!
//! Words on the command line filter lines by path, format or shape (`N x K`), as they are printed.

use std::{
    io,
    time::{Duration, Instant},
};

use memmap2::MmapMut;
use slm_kernels::{
    Activations, Adapters, Block, Format, Level, Linear, Packed, Rows, Start,
    lora::{AdapterRows, Inputs, Layout, Module, Pair, hidden},
    roofline,
};

const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 128, 512];
const SHAPES: [(usize, usize); 3] = [(3072, 576), (576, 1536), (49152, 576)];
/// Copies of a matrix together are at least this large.
const COLD_BYTES: usize = 160 << 20;
const CELL_TIME: Duration = Duration::from_millis(1000);
/// Multiplications that take a millisecond or less.
const OPERATIONS_UNDISTURBED: usize = 50_000_000;

struct Roof {
    bandwidth: f64,
    peak: Option<f64>,
}

fn main() -> io::Result<()> {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let bandwidth = roofline::read_bandwidth(COLD_BYTES, 20);
    println!("read bandwidth, one thread: {:.1} GB/s", bandwidth / 1e9);
    for level in Level::available() {
        let roof = Roof { bandwidth, peak: roofline::peak(level) };
        if let Some(peak) = roof.peak {
            println!("{level:?} peak, one thread: {:.0} GOP/s", peak / 1e9);
        }
        for format in Format::ALL {
            for (n, k) in SHAPES {
                let name = format!("{level:?} {format:?} {n}x{k}");
                if filters.iter().all(|filter| name.contains(filter.as_str())) {
                    shape(&name, level, format, (n, k), &roof);
                }
            }
        }
        let name = format!("{level:?} adapters");
        if filters.iter().all(|filter| name.contains(filter.as_str())) {
            adapters(&name, level)?;
        }
    }
    Ok(())
}

fn weights(format: Format, n: usize, k: usize) -> Packed {
    Packed::pack(format, k, n, |column, index| {
        let quants = std::array::from_fn(|i| ((column * 7 + index * 5 + i * 11) % 16) as u8);
        Block::new(0.01, 8.0, quants)
    })
}

fn shape(name: &str, level: Level, format: Format, (n, k): (usize, usize), roof: &Roof) {
    let first = weights(format, n, k);
    let copies = COLD_BYTES / first.bytes().len() + 1;
    let weights: Vec<Packed> = std::iter::once(first).chain((1..copies).map(|_| weights(format, n, k))).collect();
    println!("\n{name}, {copies} copies of {:.2} MB", weights[0].bytes().len() as f64 / 1e6);
    println!(
        "{:>5} {:>10} {:>8} {:>7} {:>6} {:>7} {:>12}",
        "rows", "time us", "GOP/s", "GB/s", "% bw", "% peak", "quantize us"
    );
    for rows in ROWS {
        let x: Vec<f32> = (0..rows * k).map(|i| ((i * 37 + 11) % 199) as f32 / 99.0 - 1.0).collect();
        let mut y = vec![0.0; rows * n];
        let mut activations = Activations::default();
        let quantize = roofline::fastest(20, || activations.quantize(level, &x, k));
        let seconds = fastest_call(level, &weights, &activations, &mut y);
        let operations = 2.0 * (rows * n * k) as f64 / seconds;
        let bytes = weights[0].bytes().len() as f64 / seconds;
        println!(
            "{rows:>5} {:>10.1} {:>8.1} {:>7.2} {:>6.0} {:>7} {:>12.2}",
            seconds * 1e6,
            operations / 1e9,
            bytes / 1e9,
            100.0 * bytes / roof.bandwidth,
            roof.peak.map_or_else(|| "-".to_owned(), |peak| format!("{:.0}", 100.0 * operations / peak)),
            quantize * 1e6,
        );
    }
}

/// Cost of adapters on top of a layer: both products, in 8 bits, weights and adapters from memory.
#[allow(unsafe_code)] // `hidden` and `Linear::columns` want that nobody else writes to their rows.
fn adapters(name: &str, level: Level) -> io::Result<()> {
    let (n, k) = (3072, 576);
    let layers: Vec<Packed> = (0..COLD_BYTES >> 20).map(|_| weights(Format::Q4Scale32, n, k)).collect();
    println!("\n{name}, Q4Scale32 {n}x{k}");
    println!("{:>5} {:>5} {:>9} {:>10} {:>10} {:>6}", "rows", "rank", "distinct", "plain us", "with us", "more");
    for (rows, rank, distinct) in [(1, 8, 1), (1, 16, 1), (8, 16, 1), (8, 16, 8), (128, 16, 1)] {
        let (a, b) = (vec![0.01; rank * k], vec![0.01; rank * n]);
        let layout = Layout::in_8_bits(k, n, &[Module { rank, column_begin: 0, columns: n }]);
        let pair = Pair { a: &a, b: &b, factor: 1.0 };
        let mut packed = MmapMut::map_anon(layers.len() * distinct * layout.bytes())?;
        for memory in packed.chunks_exact_mut(layout.bytes()) {
            assert_eq!(layout.pack(&[pair], memory), Ok(()));
        }
        let tokens: Vec<Vec<u32>> =
            (0..distinct).map(|i| (0..rows as u32).filter(|row| *row as usize % distinct == i).collect()).collect();
        let adapter_rows: Vec<AdapterRows<'_>> = packed
            .chunks_exact(layout.bytes())
            .zip(tokens.iter().cycle())
            .map(|(packed, tokens)| AdapterRows { adapter: layout.adapter(packed), tokens })
            .collect();
        let x = vec![0.5; rows * k];
        let (mut y, mut h) = (vec![0.0; rows * n], vec![0.0; rows * rank]);
        let mut activations = Activations::default();
        activations.quantize(level, &x, k);
        let (y, hidden_rows) = (Rows::new(&mut y, n), Rows::new(&mut h, rank));
        let (mut plain, mut with) = (f64::INFINITY, f64::INFINITY);
        for (round, adapter_rows) in adapter_rows.chunks(distinct).cycle().take(12 * layers.len()).enumerate() {
            let begin = Instant::now();
            let adapted = round / layers.len() % 2 == 1;
            if adapted {
                for rows in adapter_rows {
                    // SAFETY: one thread.
                    unsafe { hidden(level, rows, Inputs::Int8(&activations), hidden_rows) };
                }
            }
            let adapters = adapted.then_some(Adapters { adapter_rows, hidden: hidden_rows, ready: &|| {}, next: &[] });
            let weights = &layers[round % layers.len()];
            // SAFETY: one thread.
            unsafe {
                Linear { matrix: weights.weights().into(), x: &activations, start: Start::Zero, adapters }.columns(
                    level,
                    0..n,
                    y,
                )
            };
            let best = if adapted { &mut with } else { &mut plain };
            *best = best.min(begin.elapsed().as_secs_f64());
        }
        let more = 100.0 * (with / plain - 1.0);
        println!("{rows:>5} {rank:>5} {distinct:>9} {:>10.1} {:>10.1} {more:>5.0}%", plain * 1e6, with * 1e6);
    }
    Ok(())
}

/// Each copy at least once, and as often as fits the time; long calls by ranges of columns, each of which is shorter
/// than the time slices that others on the machine get, and counts with its fastest time.
#[allow(unsafe_code)] // `Linear::columns` wants that nobody else writes to `y`.
fn fastest_call(level: Level, weights: &[Packed], x: &Activations, y: &mut [f32]) -> f64 {
    let width = weights[0].weights().outputs();
    let parts = (y.len() * x.inputs() / OPERATIONS_UNDISTURBED).clamp(1, width / 64);
    let mut fastest = vec![f64::INFINITY; parts];
    let begin = Instant::now();
    let mut calls = 0;
    while calls < weights.len().min(20) || begin.elapsed() < CELL_TIME {
        let linear =
            Linear { matrix: weights[calls % weights.len()].weights().into(), x, start: Start::Zero, adapters: None };
        for (part, fastest) in fastest.iter_mut().enumerate() {
            let range = linear.range(part, parts);
            let call = Instant::now();
            // SAFETY: one thread.
            unsafe { linear.columns(level, range, Rows::new(y, width)) };
            *fastest = fastest.min(call.elapsed().as_secs_f64());
        }
        calls += 1;
    }
    fastest.iter().sum()
}
