//! Layers with states: results beside their formulas in f64, and their independence of how tokens are cut into steps.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use slm_kernels::{
    Level, Rows,
    states::{DeltaRule, ShortConvolution, Span, columns},
};

use crate::common::{levels, random};

const TOKENS: usize = if cfg!(miri) { 5 } else { 40 };

fn floats(count: usize, size: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-size..size)).collect()
}

/// A causal convolution of the column `column` of rows of `width`, at each token.
fn convolved(inputs: &[f64], width: usize, column: usize, weights: &[f32], kernel: usize) -> Vec<f64> {
    let tokens = inputs.len() / width;
    let tap = |token: usize, row: usize| match (token + row + 1).checked_sub(kernel) {
        Some(source) => f64::from(weights[row * width + column]) * inputs[source * width + column],
        None => 0.0,
    };
    (0..tokens).map(|token| (0..kernel).map(|row| tap(token, row)).sum()).collect()
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= bound * want.abs().max(1.0), "[{i}] {got} for {want}");
    }
}

/// A run over the tokens of a span, with its state.
type Run<'a> = dyn Fn(Span, &[f32], Rows<'_>, Rows<'_>) + 'a;

/// Two sequences in one step, the second one with fewer tokens, cut into steps after `cuts` tokens of the first: the rows of
/// outputs of the first.
fn in_steps((width, outputs, floats): (usize, usize, usize), x: &[f32], cuts: &[usize], run: &Run<'_>) -> Vec<f32> {
    // What the slots hold before is of no matter.
    let mut states = vec![f32::NAN; 3 * floats];
    let mut results = Vec::new();
    let mut begin = 0;
    for &end in cuts {
        let count = end - begin;
        let beside = &x[..width];
        let rows = [beside, &x[begin * width..end * width]].concat();
        let mut out = vec![f32::NAN; (count + 1) * outputs];
        let (states, out_rows) = (Rows::new(&mut states, floats), Rows::new(&mut out, outputs));
        run(Span { first: 0, tokens: 1, slot: 0, fresh: begin == 0 }, &rows, states, out_rows);
        run(Span { first: 1, tokens: count, slot: 2, fresh: begin == 0 }, &rows, states, out_rows);
        results.extend_from_slice(&out[outputs..]);
        begin = end;
    }
    results
}

#[test]
fn a_short_convolution_is_its_formula_however_tokens_are_cut() {
    for (width, kernel, biased) in [(64, 3, false), (40, 4, true), (7, 1, true)] {
        let mut random = random(3);
        let (weights, bias) = (floats(kernel * width, 1.0, &mut random), floats(width, 1.0, &mut random));
        let x = floats(TOKENS * 3 * width, 2.0, &mut random);
        let bias = if biased { &bias[..] } else { &[] };
        let of = ShortConvolution { weights: &weights, bias, width, kernel };
        let mut want = vec![0.0; TOKENS * width];
        let wide = |token: usize, part: usize, column: usize| f64::from(x[(3 * token + part) * width + column]);
        let inputs: Vec<f64> =
            (0..TOKENS * width).map(|at| wide(at / width, 0, at % width) * wide(at / width, 2, at % width)).collect();
        for column in 0..width {
            for (token, sum) in convolved(&inputs, width, column, &weights, kernel).into_iter().enumerate() {
                let biased = sum + bias.get(column).map_or(0.0, |bias| f64::from(*bias));
                want[token * width + column] = wide(token, 1, column) * biased;
            }
        }
        let shape = (3 * width, width, of.state_floats());
        let all = |level: Level, parts: usize, cuts: &[usize]| {
            in_steps(shape, &x, cuts, &|span, x, states, out| {
                for part in 0..parts {
                    // SAFETY: one thread.
                    unsafe { of.columns(level, span, columns(width, part, parts), x, (states, out)) };
                }
            })
        };
        let first = all(Level::Portable, 1, &[TOKENS]);
        assert_close(&first, &want, 1e-5);
        let each: Vec<usize> = (1..=TOKENS).collect();
        for level in levels() {
            for cuts in [&[TOKENS][..], &[1, 2, TOKENS], &each] {
                assert!(all(level, 3, cuts) == first, "{level:?} {width} {cuts:?}");
            }
        }
    }
}

struct Rule {
    weights: Vec<f32>,
    rates: Vec<f32>,
    steps: Vec<f32>,
    gain: Vec<f32>,
    heads: [usize; 2],
    dims: [usize; 2],
}

const KERNEL: usize = 4;
const EPSILON: f32 = 1e-6;

impl Rule {
    fn random(heads: [usize; 2], dims: [usize; 2], random: &mut ChaCha8Rng) -> Self {
        let channels = 2 * heads[0] * dims[0] + heads[1] * dims[1];
        Self {
            weights: floats(KERNEL * channels, 1.0, random),
            rates: floats(heads[1], 1.0, random).iter().map(|log| log.exp()).collect(),
            steps: floats(heads[1], 1.0, random),
            gain: floats(dims[1], 2.0, random),
            heads,
            dims,
        }
    }

    fn of(&self) -> DeltaRule<'_> {
        let Self { weights, rates, steps, gain, heads: [key_heads, value_heads], dims: [key_dim, value_dim] } = self;
        let (key_heads, value_heads, key_dim, value_dim) = (*key_heads, *value_heads, *key_dim, *value_dim);
        let kernel = KERNEL;
        DeltaRule { weights, rates, steps, gain, epsilon: EPSILON, key_heads, value_heads, key_dim, value_dim, kernel }
    }

    /// The results of all tokens, by the recurrence as it is defined.
    fn expected(&self, x: &[f32]) -> Vec<f64> {
        let of = self.of();
        let (width, channels) = (of.input_width(), of.channels());
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let inputs: Vec<f64> = wide.chunks(width).flat_map(|row| &row[..channels]).copied().collect();
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let mixed: Vec<Vec<f64>> = (0..channels)
            .map(|column| convolved(&inputs, channels, column, &self.weights, KERNEL).into_iter().map(silu).collect())
            .collect();
        let (dk, dv) = (of.key_dim, of.value_dim);
        let mut out = vec![0.0; x.len() / width * of.value_width()];
        for head in 0..of.value_heads {
            let key_head = head / (of.value_heads / of.key_heads);
            let mut state = vec![vec![0.0; dv]; dk];
            for (token, row) in wide.chunks(width).enumerate() {
                let unit = |first: usize| -> Vec<f64> {
                    let x: Vec<f64> = (0..dk).map(|i| mixed[first + key_head * dk + i][token]).collect();
                    let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                    x.iter().map(|x| x / length).collect()
                };
                let (q, k) = (unit(0), unit(of.key_heads * dk));
                let behind = channels + of.value_width();
                let beta = 1.0 / (1.0 + (-row[behind + head]).exp());
                let a = row[behind + of.value_heads + head] + f64::from(self.steps[head]);
                let forget = (-f64::from(self.rates[head]) * a.exp().ln_1p()).exp();
                state.iter_mut().flatten().for_each(|float| *float *= forget);
                let mut result = vec![0.0; dv];
                for d in 0..dv {
                    let value = mixed[2 * of.key_heads * dk + head * dv + d][token];
                    let held: f64 = (0..dk).map(|i| k[i] * state[i][d]).sum();
                    (0..dk).for_each(|i| state[i][d] += k[i] * beta * (value - held));
                    result[d] = (0..dk).map(|i| q[i] * state[i][d]).sum::<f64>() / (dk as f64).sqrt();
                }
                let mean = result.iter().map(|x| x * x).sum::<f64>() / dv as f64 + f64::from(EPSILON);
                for (d, result) in result.iter().enumerate() {
                    let gate = silu(row[channels + head * dv + d]);
                    let at = token * of.value_width() + head * dv + d;
                    out[at] = result / mean.sqrt() * f64::from(self.gain[d]) * gate;
                }
            }
        }
        out
    }
}

#[test]
fn the_gated_delta_rule_is_its_recurrence_however_tokens_are_cut() {
    for (heads, dims) in [([2, 4], [16, 16]), ([1, 1], [32, 16]), ([3, 3], [16, 48])] {
        let mut random = random(7);
        let rule = Rule::random(heads, dims, &mut random);
        let of = rule.of();
        let x = floats(TOKENS * of.input_width(), 2.0, &mut random);
        let shape = (of.input_width(), of.value_width(), of.state_floats());
        let all = |level: Level, parts: usize, cuts: &[usize]| {
            in_steps(shape, &x, cuts, &|span, x, states, out| {
                let mut mixed = vec![f32::NAN; span.rows().end * of.channels()];
                let mixed = Rows::new(&mut mixed, of.channels());
                for part in 0..parts {
                    let columns = columns(of.channels(), part, parts);
                    // SAFETY: one thread.
                    unsafe { of.convolve(level, span, columns, x, (states, mixed)) };
                }
                for head in 0..of.value_heads {
                    // SAFETY: one thread, and the span is convolved.
                    unsafe { of.head(level, (span, head), x, mixed, (states, out)) };
                }
            })
        };
        let first = all(Level::Portable, 1, &[TOKENS]);
        assert_close(&first, &rule.expected(&x), 2e-4);
        let each: Vec<usize> = (1..=TOKENS).collect();
        for level in levels() {
            for cuts in [&[TOKENS][..], &[3, TOKENS - 1, TOKENS], &each] {
                assert!(all(level, 2, cuts) == first, "{level:?} {heads:?} {dims:?} {cuts:?}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "states of 10, not 128")]
fn states_of_another_size_are_refused() {
    let of = ShortConvolution { weights: &[0.0; 192], bias: &[], width: 64, kernel: 3 };
    let (mut states, mut out) = (vec![0.0; 20], vec![0.0; 64]);
    let (states, out) = (Rows::new(&mut states, 10), Rows::new(&mut out, 64));
    let span = Span { first: 0, tokens: 1, slot: 0, fresh: true };
    // SAFETY: one thread.
    unsafe { of.columns(Level::Portable, span, 0..64, &[0.0; 192], (states, out)) };
}
