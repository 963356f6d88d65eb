//! A layer for tests of attention: its shape and settings, and the formula in f64.

use half::f16;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use slm_kernels::attention::{QkNorm, RelativeBias, Rotary, Shape, Stored};

/// A layer and its rotary tables.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) shape: Shape,
    pub(super) window: Option<usize>,
    /// Whether tokens see later positions, too.
    pub(super) bidirectional: bool,
    pub(super) soft_cap: Option<f32>,
    pub(super) narrow: bool,
    pub(super) rotary_dim: usize,
    pub(super) interleaved: bool,
    pub(super) norm: Option<Norms>,
    pub(super) stored: Stored,
    pub(super) gated: bool,
    /// Added to scores by distance; none if empty.
    pub(super) bias: Vec<f32>,
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}

/// Norms of queries and keys.
#[derive(Clone, Debug)]
pub(super) struct Norms {
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) whole_token: bool,
    pub(super) after_rotary: bool,
}

pub(super) const EPSILON: f32 = 1e-5;

impl Norms {
    pub(super) fn new(shape: &Shape, whole_token: bool, after_rotary: bool) -> Self {
        let gains = |heads: usize| {
            let width = if whole_token { heads * shape.head_dim() } else { shape.head_dim() };
            (0..width).map(|i| 0.5 + (i % 7) as f32 / 8.0).collect()
        };
        Self { q: gains(shape.heads()), k: gains(shape.kv_heads()), whole_token, after_rotary }
    }
}

const POSITIONS: usize = if cfg!(miri) { 40 } else { 800 };

impl Layer {
    pub(super) fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let half = head_dim / 2;
        let angle = |i: usize| (i / half) as f64 / 10_000f64.powf((i % half) as f64 / half as f64);
        Self {
            shape: Shape::new(heads, kv_heads, head_dim),
            window: None,
            bidirectional: false,
            soft_cap: None,
            narrow: false,
            rotary_dim: head_dim,
            interleaved: false,
            norm: None,
            stored: Stored::PLAIN,
            gated: false,
            bias: Vec::new(),
            cos: (0..POSITIONS * half).map(|i| angle(i).cos() as f32).collect(),
            sin: (0..POSITIONS * half).map(|i| angle(i).sin() as f32).collect(),
        }
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim() as f32).sqrt()
    }

    /// Floats of a row of inputs.
    pub(super) fn width(&self) -> usize {
        self.stored.width(&self.shape) + if self.gated { self.shape.queries_width() } else { 0 }
    }

    pub(super) fn rotary(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.sin, dim: self.rotary_dim, interleaved: self.interleaved }
    }

    pub(super) fn bias(&self) -> Option<RelativeBias<'_>> {
        let positions = (self.bias.len() / self.shape.heads()).div_ceil(2);
        (positions > 0).then_some(RelativeBias { table: &self.bias, positions })
    }

    /// Rows of queries, keys and values for so many positions.
    pub(super) fn text(&self, positions: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
        (0..positions * self.shape.qkv_width()).map(|_| random.random_range(-3.0..3.0)).collect()
    }

    pub(super) fn norm(&self) -> Option<QkNorm<'_>> {
        let Norms { q, k, whole_token, after_rotary } = self.norm.as_ref()?;
        Some(QkNorm { q, k, epsilon: EPSILON, whole_token: *whole_token, after_rotary: *after_rotary })
    }

    /// Head `head` of a row, queries first, then keys, normed and rotated for `position`.
    pub(super) fn rotated(&self, qkv: &[f32], head: usize, position: usize) -> Vec<f64> {
        let dim = self.shape.head_dim();
        let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
        let x = wide(&qkv[head * dim..][..dim]);
        let Some(norms) = &self.norm else { return self.turned(&x, position) };
        let (heads, first) = if head < self.shape.heads() {
            (self.shape.heads(), 0)
        } else {
            (self.shape.kv_heads(), self.shape.heads())
        };
        let gains = if first == 0 { &norms.q } else { &norms.k };
        let normed = |x: &[f64], over: &[f64], gains: &[f32]| -> Vec<f64> {
            let mean = over.iter().map(|x| x * x).sum::<f64>() / over.len() as f64;
            let scale = 1.0 / (mean + f64::from(EPSILON)).sqrt();
            x.iter().zip(gains).map(|(x, gain)| x * scale * f64::from(*gain)).collect()
        };
        if norms.whole_token {
            let all = wide(&qkv[first * dim..][..heads * dim]);
            return self.turned(&normed(&x, &all, &gains[(head - first) * dim..][..dim]), position);
        }
        if norms.after_rotary {
            let turned = self.turned(&x, position);
            return normed(&turned, &turned, gains);
        }
        self.turned(&normed(&x, &x, gains), position)
    }

    pub(super) fn turned(&self, x: &[f64], position: usize) -> Vec<f64> {
        let half = self.rotary_dim / 2;
        let mut y = x.to_vec();
        for i in 0..half {
            let (cos, sin) = (f64::from(self.cos[position * half + i]), f64::from(self.sin[position * half + i]));
            let (a, b) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, half + i) };
            y[a] = x[a] * cos - x[b] * sin;
            y[b] = x[b] * cos + x[a] * sin;
        }
        y
    }

    /// The outputs of the last `count` positions of a text, by the formula.
    pub(super) fn expected(&self, text: &[f32], count: usize) -> Vec<f64> {
        let (shape, width, dim) = (&self.shape, self.shape.qkv_width(), self.shape.head_dim());
        let rows: Vec<&[f32]> = text.chunks(width).collect();
        let round = |x: f64| if self.narrow { f16::from_f32_const(x as f32).to_f64_const() } else { x };
        let mut out = Vec::new();
        let mut heads = Vec::new();
        for kv_head in 0..shape.kv_heads() {
            let key = |(j, row): (usize, &&[f32])| -> Vec<f64> {
                self.rotated(row, shape.heads() + kv_head, j).into_iter().map(round).collect()
            };
            let value = |row: &&[f32]| -> Vec<f64> {
                let begin = (shape.heads() + shape.kv_heads() + kv_head) * dim;
                row[begin..][..dim].iter().map(|&x| round(f64::from(x))).collect()
            };
            heads.push((
                rows.iter().enumerate().map(key).collect::<Vec<_>>(),
                rows.iter().map(value).collect::<Vec<_>>(),
            ));
        }
        for position in rows.len() - count..rows.len() {
            let window = self.window.unwrap_or(usize::MAX);
            let first = (position + 1).saturating_sub(window);
            let end = if self.bidirectional { position.saturating_add(window).min(rows.len()) } else { position + 1 };
            for head in 0..shape.heads() {
                let (keys, values) = &heads[head / shape.group()];
                let query = self.rotated(rows[position], head, position);
                let bias = |j: usize| {
                    let of = |bias: RelativeBias<'_>| {
                        bias.table[head * (2 * bias.positions - 1) + bias.positions - 1 + j - position]
                    };
                    self.bias().map_or(0.0, |bias| f64::from(of(bias)))
                };
                let score = |(j, key): (usize, &Vec<f64>)| -> f64 {
                    let dot: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(self.scale());
                    bias(first + j) + self.soft_cap.map_or(dot, |cap| f64::from(cap) * (dot / f64::from(cap)).tanh())
                };
                let scores: Vec<f64> = keys[first..end].iter().enumerate().map(score).collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..dim {
                    let total: f64 = weights.iter().zip(&values[first..]).map(|(w, v)| w * v[d]).sum();
                    out.push(total / sum);
                }
            }
        }
        out
    }
}
