//! Decoding and prompts, beside what the machine can do: `cargo bench -p slm-kernels --bench attention [FILTER]`.
//!
//! One thread. Keys and values come from memory: calls go round over layers that together are larger than the last
//! cache. Of many calls the fastest counts, since what disturbs a machine only ever adds time. GB/s are bytes of keys
//! and values, each counted once; GFLOP/s count the multiplications and additions of both products over the positions
//! that a token sees. `% bw` is GB/s of the read bandwidth, `% peak` GFLOP/s of what fused multiplications and additions
//! do from registers.
//!
//! Words on the command line filter lines by path or kind, as they are printed.

use std::time::{Duration, Instant};

use half::f16;
use slm_kernels::{
    Level, Rows,
    attention::{Attention, PAGE, Pages, Plan, Rotary, Sequence, Shape, Stored},
    roofline,
};

/// Layers together are at least this large.
const COLD_BYTES: usize = 160 << 20;
const LINE_TIME: Duration = Duration::from_millis(1500);
const CALLS_MIN: usize = 1;
/// Of the rotary tables.
const POSITIONS: usize = 4096;

/// Sequences, each with so many positions before, and so many new tokens.
struct Case {
    kind: &'static str,
    shape: Shape,
    sequences: usize,
    before: usize,
    tokens: usize,
    narrow: bool,
}

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let bandwidth = roofline::read_bandwidth(COLD_BYTES, 20);
    println!("read bandwidth, one thread: {:.1} GB/s; pages of {PAGE}", bandwidth / 1e9);
    let (small, large) = (Shape::new(9, 3, 64), Shape::new(32, 8, 128));
    let decode =
        |shape, sequences, before, narrow| Case { kind: "decode", shape, sequences, before, tokens: 1, narrow };
    let prompt = |shape, before, tokens| Case { kind: "prompt", shape, sequences: 1, before, tokens, narrow: true };
    let cases = [
        decode(small, 8, 159, true),
        decode(small, 8, 159, false),
        decode(small, 1, 159, true),
        decode(small, 8, 1999, true),
        decode(Shape::new(8, 8, 64), 8, 159, true),
        decode(large, 8, 159, true),
        prompt(small, 0, 128),
        prompt(small, 0, 512),
        prompt(small, 1536, 512),
        prompt(large, 0, 512),
    ];
    for level in Level::available() {
        let name = |case: &Case| format!("{level:?} {}", case.name());
        let wanted = |case: &&Case| filters.iter().all(|filter| name(case).contains(filter.as_str()));
        let wanted: Vec<&Case> = cases.iter().filter(wanted).collect();
        if wanted.is_empty() {
            continue;
        }
        let peak = roofline::peak_floats(level);
        println!("\n{level:?} peak, one thread: {:.0} GFLOP/s", peak / 1e9);
        println!(
            "{:<50} {:>10} {:>10} {:>7} {:>5} {:>8} {:>6}",
            "", "append us", "attend us", "GB/s", "% bw", "GFLOP/s", "% peak"
        );
        for case in wanted {
            line(&name(case), level, case, bandwidth, peak);
        }
    }
}

impl Case {
    fn name(&self) -> String {
        let Self { kind, shape, sequences, before, tokens, narrow } = self;
        let (heads, kv_heads, dim) = (shape.heads(), shape.kv_heads(), shape.head_dim());
        let element = if *narrow { "f16" } else { "f32" };
        format!("{kind} {heads}/{kv_heads} x {dim}, {sequences} x ({before} + {tokens}) {element}")
    }
}

/// Memory of one layer, full of ones.
enum Memory {
    Wide(Vec<f32>),
    Narrow(Vec<f16>),
}

impl Memory {
    fn new(narrow: bool, elements: usize) -> Self {
        if narrow { Self::Narrow(vec![f16::ONE; elements]) } else { Self::Wide(vec![1.0; elements]) }
    }

    fn view(&mut self, shape: Shape) -> Pages<'_> {
        match self {
            Self::Wide(memory) => Pages::f32(shape, memory),
            Self::Narrow(memory) => Pages::f16(shape, memory),
        }
    }
}

#[allow(unsafe_code)] // Both halves of `Attention` want that nobody else uses the rows.
fn line(name: &str, level: Level, case: &Case, bandwidth: f64, peak: f64) {
    let shape = case.shape;
    let end = case.before + case.tokens;
    let pages = end.div_ceil(PAGE);
    let elements = case.sequences * pages * shape.page_elements();
    let bytes = elements * if case.narrow { 2 } else { 4 };
    let mut layers: Vec<Memory> = (0..COLD_BYTES / bytes + 1).map(|_| Memory::new(case.narrow, elements)).collect();
    let tables: Vec<Vec<u32>> =
        (0..case.sequences).map(|i| (0..pages).map(|page| (page * case.sequences + i) as u32).collect()).collect();
    let sequences: Vec<Sequence<'_>> =
        tables.iter().map(|pages| Sequence { pages, begin: case.before, tokens: case.tokens }).collect();
    let mut plan = Plan::new(shape);
    plan.update(&sequences, 1);
    let width = shape.queries_width();
    let qkv: Vec<f32> =
        (0..plan.tokens() * shape.qkv_width()).map(|i| ((i * 37 + 11) % 199) as f32 / 99.0 - 1.0).collect();
    let table = vec![0.7; POSITIONS * shape.head_dim() / 2];
    let rotary = Rotary { cos: &table, sin: &table, dim: shape.head_dim(), interleaved: false };
    let (mut queries, mut out) = (vec![0.0; plan.tokens() * width], vec![0.0; plan.tokens() * width]);
    let out = Rows::new(&mut out, width);
    let mut append = f64::INFINITY;
    let mut attend = vec![f64::INFINITY; plan.items()];
    let begin = Instant::now();
    let mut calls = 0;
    while calls < CALLS_MIN || begin.elapsed() < LINE_TIME {
        let index = calls % layers.len();
        let attention = Attention {
            plan: &plan,
            pages: layers[index].view(shape),
            queries: Rows::new(&mut queries, width),
            scale: 0.125,
            window: None,
            soft_cap: None,
            norm: None,
            stored: Stored::PLAIN,
            gated: false,
            bias: None,
        };
        let call = Instant::now();
        // SAFETY: one thread.
        unsafe { attention.append(level, 0..plan.tokens(), &qkv, &rotary) };
        append = append.min(call.elapsed().as_secs_f64());
        for (item, fastest) in attend.iter_mut().enumerate() {
            let call = Instant::now();
            // SAFETY: one thread.
            unsafe { attention.attend(level, item, out) };
            *fastest = fastest.min(call.elapsed().as_secs_f64());
        }
        calls += 1;
    }
    let attend: f64 = attend.iter().sum();
    let read = (case.sequences * end * 2 * shape.kv_heads() * shape.head_dim()) * if case.narrow { 2 } else { 4 };
    let seen: usize = (case.before + 1..=end).sum();
    let operations = 4 * case.sequences * seen * shape.heads() * shape.head_dim();
    let (bytes, operations) = (read as f64 / attend, operations as f64 / attend);
    println!(
        "{name:<50} {:>10.1} {:>10.1} {:>7.2} {:>5.0} {:>8.1} {:>6.0}",
        append * 1e6,
        attend * 1e6,
        bytes / 1e9,
        100.0 * bytes / bandwidth,
        operations / 1e9,
        100.0 * operations / peak,
    );
}
