//! Experts: results beside those of the crate's linear layers, expert by expert, and their independence of the batch.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

use rand::Rng;
use slm_kernels::{
    Activations, Format, Level, Linear, Start, Weights,
    experts::{Buffers, Experts, Stack, route},
    phases::cut,
    rowwise::{Activation, dots, gated},
};

use crate::common::{Matrix, levels, random};

const COUNT: usize = 6;
const USED: usize = 2;
const INPUTS: usize = 72;
const SIZE: usize = 40;

/// Matrices of all experts, packed in `format` or in floats.
struct Block {
    format: Option<Format>,
    router: Vec<f32>,
    up: Matrices,
    down: Matrices,
}

struct Matrices {
    packed: Vec<u8>,
    floats: Vec<f32>,
}

impl Matrices {
    fn stack(&self, format: Option<Format>, shape: [usize; 2]) -> Stack<'_> {
        match format {
            Some(format) => Stack::packed(format, COUNT, shape, &self.packed).unwrap(),
            None => Stack::f32(COUNT, shape, &self.floats).unwrap(),
        }
    }
}

impl Block {
    fn random(format: Option<Format>) -> Self {
        let mut random = random(5);
        let mut stack = |inputs: usize, outputs: usize| {
            let (mut packed, mut floats) = (Vec::new(), Vec::new());
            for _ in 0..COUNT {
                let matrix = Matrix::random(format.unwrap_or(Format::Q8Scale32), inputs, outputs, &mut random);
                packed.extend_from_slice(matrix.packed.bytes());
                floats.extend(matrix.weights.iter().map(|&weight| weight as f32));
            }
            Matrices { packed, floats }
        };
        let (up, down) = (stack(INPUTS, 2 * SIZE), stack(SIZE, INPUTS));
        let router = (0..COUNT * INPUTS).map(|_| random.random_range(-0.3..0.3)).collect();
        Self { format, router, up, down }
    }

    fn experts(&self) -> Experts<'_> {
        Experts {
            router: &self.router,
            used: USED,
            normalized: true,
            up: self.up.stack(self.format, [INPUTS, 2 * SIZE]),
            down: self.down.stack(self.format, [SIZE, INPUTS]),
            activation: Activation::Silu,
            gated: true,
        }
    }

    /// One expert's matrix times one row.
    fn product(&self, level: Level, of: &Matrices, expert: usize, x: &[f32], outputs: usize) -> Vec<f32> {
        let mut y = vec![0.0; outputs];
        let Matrices { packed, floats } = of;
        let part = |len: usize| len / COUNT * expert..len / COUNT * (expert + 1);
        match self.format {
            Some(format) => {
                let weights = Weights::new(format, x.len(), outputs, &packed[part(packed.len())]).unwrap();
                let mut quantized = Activations::default();
                quantized.quantize(level, x, x.len());
                Linear { matrix: weights.into(), x: &quantized, start: Start::Zero, adapters: None }.all(level, &mut y);
            }
            None => dots(level, &floats[part(floats.len())], x, &mut y),
        }
        y
    }

    fn token(&self, level: Level, x: &[f32]) -> Vec<f32> {
        let mut weights = vec![0.0; COUNT];
        dots(level, &self.router, x, &mut weights);
        route(level, &mut weights, USED, true);
        let mut out = vec![1.0f32; INPUTS];
        for (expert, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            let up = self.product(level, &self.up, expert, x, 2 * SIZE);
            let mut hidden = vec![0.0; SIZE];
            gated(level, Activation::Silu, &up[..SIZE], &up[SIZE..], &mut hidden);
            let down = self.product(level, &self.down, expert, &hidden, INPUTS);
            out.iter_mut().zip(down).for_each(|(out, down)| *out = (0.5 * weight).mul_add(down, *out));
        }
        out
    }
}

fn rows(count: usize) -> Vec<f32> {
    let mut random = random(9);
    (0..count * INPUTS).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn formats() -> impl Iterator<Item = Option<Format>> {
    Format::ALL.into_iter().map(Some).chain([None])
}

#[test]
fn tokens_get_the_weighted_results_of_their_experts_whatever_else_is_in_the_step() {
    let x = rows(50);
    for format in formats() {
        let block = Block::random(format);
        let expected: Vec<f32> = x.chunks_exact(INPUTS).flat_map(|x| block.token(Level::Portable, x)).collect();
        let mut buffers = Buffers::default();
        for level in levels() {
            for (first, count) in [(0, 50), (0, 1), (3, 1), (7, 13)] {
                let cells = first * INPUTS..(first + count) * INPUTS;
                let mut out = vec![1.0; count * INPUTS];
                block.experts().all(level, &mut buffers, &x[cells.clone()], 0.5, &mut out);
                assert!(out == expected[cells], "{format:?} {level:?}: {count} tokens from {first}");
            }
        }
    }
}

#[test]
fn tasks_of_several_threads_cover_every_cell_once() {
    let (x, level) = (rows(20), Level::best());
    for format in formats() {
        let block = Block::random(format);
        let mut expected = vec![0.0; x.len()];
        block.experts().all(level, &mut Buffers::default(), &x, 1.0, &mut expected);
        let mut buffers = Buffers::default();
        let routing = buffers.route(block.experts(), 20);
        let mut out = vec![0.0; x.len()];
        // SAFETY: one thread, each task once, in the order of the phases.
        unsafe {
            routing.tokens(level, 0..20, |token, row| row.copy_from_slice(&x[token * INPUTS..][..INPUTS]));
            let grouped = buffers.group(block.experts(), 16);
            let parts = |task: usize| cut(grouped.visits(), task, 7)..cut(grouped.visits(), task + 1, 7);
            (0..7).for_each(|task| grouped.gather(level, parts(task)));
            (0..grouped.products()).rev().for_each(|task| grouped.up(level, task));
            (0..7).for_each(|task| grouped.activate(level, parts(task)));
            (0..grouped.products()).rev().for_each(|task| grouped.down(level, task));
            out.chunks_exact_mut(INPUTS).enumerate().for_each(|(token, out)| grouped.add(level, token, 1.0, out));
        }
        assert!(out == expected, "{format:?}");
    }
}

#[test]
fn stacks_of_another_size_are_refused() {
    assert!(Stack::f32(2, [3, 4], &[0.0; 24]).is_ok());
    let message = Stack::f32(3, [3, 4], &[0.0; 24]).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("all experts") && message.contains("36"), "{message}");
    assert!(Stack::packed(Format::Q4Min32, 2, [32, 16], &[0; 64]).is_err());
}
