//! Every path at several row counts, beside what the machine can do: `cargo bench -p slm_kernels [FILTER]`.
//!
//! One thread. Weights come from memory: calls go round over copies that together are larger than the last cache.
//! Of many calls the fastest counts (of long ones, of each of their parts), since what disturbs a machine only ever adds
//! time. GOP/s count a multiplication
//! and an addition as two; GB/s are bytes of packed weights. `% bw` is GB/s of the read bandwidth and `% peak` GOP/s of
//! what the level's own instruction does from registers (not known for plain Rust).
//!
//! Words on the command line filter lines by path, format or shape (`N x K`), as they are printed.

use std::time::{Duration, Instant};

use slm_kernels::{Activations, Block, Format, Level, Linear, Rows, Start, Weights, roofline};

const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 128, 512];
const SHAPES: [(usize, usize); 3] = [(3072, 576), (576, 1536), (49152, 576)];
const FORMATS: [Format; 3] = [Format::Q4Scale32, Format::Q4Zero64, Format::Q8Scale32];
/// Copies of a matrix together are at least this large.
const COLD_BYTES: usize = 160 << 20;
const CELL_TIME: Duration = Duration::from_millis(1000);
/// Multiplications that take a millisecond or less.
const OPERATIONS_UNDISTURBED: usize = 50_000_000;

struct Roof {
    bandwidth: f64,
    peak: Option<f64>,
}

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let bandwidth = roofline::read_bandwidth(COLD_BYTES, 20);
    println!("read bandwidth, one thread: {:.1} GB/s", bandwidth / 1e9);
    for level in Level::available() {
        let roof = Roof { bandwidth, peak: roofline::peak(level) };
        if let Some(peak) = roof.peak {
            println!("{level:?} peak, one thread: {:.0} GOP/s", peak / 1e9);
        }
        for format in FORMATS {
            for (n, k) in SHAPES {
                let name = format!("{level:?} {format:?} {n}x{k}");
                if filters.iter().all(|filter| name.contains(filter.as_str())) {
                    shape(&name, level, format, (n, k), &roof);
                }
            }
        }
    }
}

fn shape(name: &str, level: Level, format: Format, (n, k): (usize, usize), roof: &Roof) {
    let make = |seed: usize| {
        Weights::pack(format, k, n, |column, index| {
            let mut quants = [0; 64];
            for (i, quant) in quants.iter_mut().enumerate() {
                *quant = ((column * 7 + index * 5 + i * 11 + seed) % 16) as u8;
            }
            Block { scale: 0.01, offset: 8.0, quants }
        })
    };
    let first = make(0);
    let copies = COLD_BYTES / first.bytes() + 1;
    let weights: Vec<Weights> = std::iter::once(first).chain((1..copies).map(make)).collect();
    println!("\n{name}, {copies} copies of {:.2} MB", weights[0].bytes() as f64 / 1e6);
    println!(
        "{:>5} {:>10} {:>8} {:>7} {:>6} {:>7} {:>12}",
        "rows", "time us", "GOP/s", "GB/s", "% bw", "% peak", "quantize us"
    );
    for rows in ROWS {
        let x: Vec<f32> = (0..rows * k).map(|i| ((i * 37 + 11) % 199) as f32 / 99.0 - 1.0).collect();
        let mut y = vec![0.0; rows * n];
        let mut activations = Activations::default();
        let quantize = roofline::fastest(20, || activations.quantize(level, &x, k, format.block()));
        let seconds = fastest_call(level, &weights, &activations, &mut y);
        let operations = 2.0 * (rows * n * k) as f64 / seconds;
        let bytes = weights[0].bytes() as f64 / seconds;
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

/// Each copy at least once, and as often as fits the time; long calls by ranges of columns, each of which is shorter
/// than the time slices that others on the machine get, and counts with its fastest time.
#[allow(unsafe_code)] // `Linear::columns` wants that nobody else writes to `y`.
fn fastest_call(level: Level, weights: &[Weights], x: &Activations, y: &mut [f32]) -> f64 {
    let width = weights[0].outputs();
    let parts = (y.len() * x.inputs() / OPERATIONS_UNDISTURBED).clamp(1, width / 64);
    let mut fastest = vec![f64::INFINITY; parts];
    let begin = Instant::now();
    let mut calls = 0;
    while calls < weights.len().min(20) || begin.elapsed() < CELL_TIME {
        let linear = Linear { weights: &weights[calls % weights.len()], x, start: Start::Zero, adapters: None };
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
