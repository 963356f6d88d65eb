//! Append step: rotary embedding of queries and keys, and storage of keys and values.
#![allow(unsafe_code)] // Addresses of positions in pages; `Attention::append` checks them.

use super::{HEAD_DIM_MAX, Shape, Stored, pages::Head};
use crate::{
    level::Level,
    memory::LINE,
    memory::fetch_line,
    rowwise::inverse_rms,
    simd::{Element, Simd, WIDTH, at_level},
};

/// Rotary position embedding with pairs half of `dim` apart ("rotate half", as in Hugging Face's Llama).
///
/// ```text
/// y[i] = x[i] * cos[p, i] - x[i + dim / 2] * sin[p, i]
/// y[i + dim / 2] = x[i + dim / 2] * cos[p, i] + x[i] * sin[p, i]
/// ```
///
/// With `interleaved`, pair `i` is `x[2 i]` and `x[2 i + 1]`, as in the original RoFormer and Hugging Face's GLM.
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'a> {
    /// `[positions, dim / 2]`.
    pub cos: &'a [f32],
    /// `[positions, dim / 2]`.
    pub sin: &'a [f32],
    /// Number of leading floats of a head that are rotated; even, zero for no rotation.
    pub dim: usize,
    /// Whether the floats of a pair are side by side.
    pub interleaved: bool,
}

/// RMS norms of queries and keys, as [`rowwise::rms_norm`](crate::rowwise::rms_norm).
#[derive(Debug, Clone, Copy)]
pub struct QkNorm<'a> {
    /// Gains of queries: of a head, or of all heads of a token.
    pub q: &'a [f32],
    /// Gains of keys: of a head, or of all heads of a token. Unused where no keys are stored.
    pub k: &'a [f32],
    /// Epsilon under the root.
    pub epsilon: f32,
    /// Whether the norm is over all heads of a token, instead of over each head.
    pub whole_token: bool,
    /// Whether it follows the rotation, instead of going before it. Only for a norm over each head.
    pub after_rotary: bool,
}

impl QkNorm<'_> {
    pub(super) fn check(&self, shape: &Shape, stored: Stored, gated: bool) {
        assert!(!(gated && self.whole_token), "a norm over all heads takes queries without gates");
        let widths = if self.whole_token { [shape.queries_width(), shape.kv_width()] } else { [shape.head_dim; 2] };
        let found = [self.q.len(), self.k.len()];
        assert!(
            found[0] == widths[0] && (stored == Stored::Nothing || found[1] == widths[1]),
            "{found:?} gains of queries and keys for {widths:?}"
        );
        assert!(!(self.whole_token && self.after_rotary), "a norm over all heads goes before the rotation");
    }
}

/// Norm of the heads of one token's queries or keys.
#[derive(Clone, Copy)]
struct HeadNorm<'a> {
    gains: &'a [f32],
    epsilon: f32,
    /// Of a norm over all heads: what their floats are multiplied by.
    of_token: Option<f32>,
    after_rotary: bool,
}

impl<'a> HeadNorm<'a> {
    #[inline(always)]
    fn new(norm: Option<&QkNorm<'a>>, gains: impl Fn(&QkNorm<'a>) -> &'a [f32], x: &[f32]) -> Option<Self> {
        let norm = norm?;
        let of_token = norm.whole_token.then(|| inverse_rms(x, norm.epsilon));
        Some(Self { gains: gains(norm), epsilon: norm.epsilon, of_token, after_rotary: norm.after_rotary })
    }

    /// `out = norm(x)` for head `head`.
    #[inline(always)]
    fn head(&self, head: usize, x: &[f32], out: &mut [f32]) {
        let (scale, gains) = match self.of_token {
            Some(scale) => (scale, &self.gains[head * x.len()..][..x.len()]),
            None => (inverse_rms(x, self.epsilon), self.gains),
        };
        for ((out, x), gain) in out.iter_mut().zip(x).zip(gains) {
            *out = x * scale * gain;
        }
    }
}

impl Rotary<'_> {
    pub(super) fn check(&self, shape: &Shape, positions: usize) {
        let dim = self.dim;
        assert!(dim.is_multiple_of(2) && dim <= shape.head_dim, "a rotation of {dim} for heads of {}", shape.head_dim);
        let floats = positions * (dim / 2);
        assert!(
            self.cos.len() >= floats && self.sin.len() >= floats,
            "rotary tables of {} and {} floats for {positions} positions of {}",
            self.cos.len(),
            self.sin.len(),
            dim / 2
        );
    }

    /// `out = scale * rotated x`.
    #[inline(always)]
    fn rotate(&self, position: usize, x: &[f32], scale: f32, out: &mut [f32]) {
        let half = self.dim / 2;
        let (cos, sin) = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        if self.interleaved {
            let pairs = x[..self.dim].as_chunks::<2>().0.iter().zip(cos.iter().zip(sin));
            for (out, ([x, y], (cos, sin))) in out[..self.dim].as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *out = [scale * x.mul_add(*cos, -(y * sin)), scale * y.mul_add(*cos, x * sin)];
            }
            for (out, x) in out[self.dim..].iter_mut().zip(&x[self.dim..]) {
                *out = scale * x;
            }
            return;
        }
        let ((lower, upper), (out_lower, out_upper)) = (x.split_at(half), out.split_at_mut(half));
        let pairs = lower.iter().zip(upper).zip(cos.iter().zip(sin));
        for ((y, z), ((x, upper), (cos, sin))) in out_lower.iter_mut().zip(out_upper).zip(pairs) {
            *y = scale * x.mul_add(*cos, -(upper * sin));
            *z = scale * upper.mul_add(*cos, x * sin);
        }
        for (out, x) in out[self.dim..].iter_mut().zip(&x[self.dim..]) {
            *out = scale * x;
        }
    }
}

/// A rotation to one position.
struct Place<'a> {
    rotary: &'a Rotary<'a>,
    position: usize,
}

impl Place<'_> {
    /// `out = scale * x`, normed and rotated.
    #[inline(always)]
    fn turn(&self, norm: Option<&HeadNorm<'_>>, head: usize, x: &[f32], scale: f32, out: &mut [f32]) {
        let Self { rotary, position } = *self;
        let Some(norm) = norm else { return rotary.rotate(position, x, scale, out) };
        let mut between = [0.0; HEAD_DIM_MAX];
        let between = &mut between[..x.len()];
        if norm.after_rotary {
            rotary.rotate(position, x, 1.0, between);
            norm.head(head, between, out);
            out.iter_mut().for_each(|out| *out *= scale);
        } else {
            norm.head(head, x, between);
            rotary.rotate(position, between, scale, out);
        }
    }
}

/// One token.
pub(super) struct Append<'a> {
    pub(super) shape: Shape,
    pub(super) table: &'a [u32],
    pub(super) position: usize,
    pub(super) qkv: &'a [f32],
    pub(super) rotary: Rotary<'a>,
    pub(super) norm: Option<QkNorm<'a>>,
    pub(super) stored: Stored,
    pub(super) gated: bool,
    pub(super) scale: f32,
    pub(super) queries: &'a mut [f32],
}

/// # Safety
/// The table covers the position, `memory` holds the pages that it names, and the CPU has the level.
pub(super) unsafe fn append_at<E: Element>(level: Level, memory: *mut E, append: Append<'_>) {
    // SAFETY: passed on.
    unsafe { at_level!(level, append_with::<E>, (memory: *mut E, append: Append<'_>)) }
}

#[inline(always)]
unsafe fn append_with<S: Simd, E: Element>(memory: *mut E, append: Append<'_>) {
    let Append { shape, table, position, qkv, rotary, norm, stored, gated, scale, queries } = append;
    let dim = shape.head_dim;
    // With gates, every second head is a query.
    let stride = if gated { 2 } else { 1 };
    let (q, kv) = qkv.split_at(stride * shape.queries_width());
    let q = Queries { floats: q, stride };
    let place = Place { rotary: &rotary, position };
    let Stored::Own { keys_as_values, value_norm } = stored else {
        return turn_queries(&place, norm.as_ref(), &q, scale, dim, queries);
    };
    let (keys, values) = if keys_as_values { (kv, kv) } else { kv.split_at(shape.kv_width()) };
    // Prefetch: a key spans many cache lines, which would be awaited one by one.
    for kv_head in 0..shape.kv_heads() {
        // SAFETY: addresses within the position's page, where nothing is read yet.
        unsafe {
            let head = Head::new(memory, &shape, kv_head, table);
            for d in (0..dim).step_by(LINE / (WIDTH * size_of::<E>())) {
                fetch_line(head.key(position).add(d * WIDTH).cast());
            }
            fetch_line(head.value(position).cast());
        }
    }
    turn_queries(&place, norm.as_ref(), &q, scale, dim, queries);
    let k_norm = HeadNorm::new(norm.as_ref(), |norm| norm.k, keys);
    let mut rotated = [0.0; HEAD_DIM_MAX];
    let mut narrow = [E::default(); HEAD_DIM_MAX];
    for (kv_head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
        place.turn(k_norm.as_ref(), kv_head, key, 1.0, &mut rotated[..dim]);
        // SAFETY: `dim` is a multiple of the width, and the position's key and value are within their page.
        unsafe {
            let head = Head::new(memory, &shape, kv_head, table);
            let (to_key, to_value) = (head.key(position), head.value(position));
            for d in (0..dim).step_by(WIDTH) {
                E::store(S::load(rotated.as_ptr().add(d)), narrow.as_mut_ptr().add(d));
            }
            for (d, &float) in narrow[..dim].iter().enumerate() {
                *to_key.add(d * WIDTH) = float;
            }
            let value = match value_norm {
                Some(epsilon) => {
                    let scale = inverse_rms(value, epsilon);
                    rotated.iter_mut().zip(value).for_each(|(normed, value)| *normed = value * scale);
                    &rotated[..dim]
                }
                None => value,
            };
            for d in (0..dim).step_by(WIDTH) {
                E::store(S::load(value.as_ptr().add(d)), to_value.add(d));
            }
        }
    }
}

/// Queries of a token: the first of every `stride` heads.
struct Queries<'a> {
    floats: &'a [f32],
    stride: usize,
}

#[inline(always)]
fn turn_queries(
    place: &Place<'_>,
    norm: Option<&QkNorm<'_>>,
    q: &Queries<'_>,
    scale: f32,
    dim: usize,
    queries: &mut [f32],
) {
    let norm = HeadNorm::new(norm, |norm| norm.q, q.floats);
    let heads = q.floats.chunks_exact(dim).step_by(q.stride);
    for (head, (query, rotated)) in heads.zip(queries.chunks_exact_mut(dim)).enumerate() {
        place.turn(norm.as_ref(), head, query, scale, rotated);
    }
}
