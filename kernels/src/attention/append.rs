//! Append step: rotary embedding of queries and keys, and storage of keys and values.
#![allow(unsafe_code)] // Addresses of positions in pages; `Attention::append` checks them.

use super::{HEAD_DIM_MAX, Shape, pages::Head};
use crate::{
    level::Level,
    memory::LINE,
    memory::fetch_line,
    simd::{Element, Simd, WIDTH, at_level},
};

/// Rotary position embedding with pairs half of `dim` apart ("rotate half", as in Hugging Face's Llama).
///
/// ```text
/// y[i] = x[i] * cos[p, i] - x[i + dim / 2] * sin[p, i]
/// y[i + dim / 2] = x[i + dim / 2] * cos[p, i] + x[i] * sin[p, i]
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'a> {
    /// `[positions, dim / 2]`.
    pub cos: &'a [f32],
    /// `[positions, dim / 2]`.
    pub sin: &'a [f32],
    /// Number of leading floats of a head that are rotated; even, zero for no rotation.
    pub dim: usize,
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

/// One token.
pub(super) struct Append<'a> {
    pub(super) shape: Shape,
    pub(super) table: &'a [u32],
    pub(super) position: usize,
    pub(super) qkv: &'a [f32],
    pub(super) rotary: Rotary<'a>,
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
    let Append { shape, table, position, qkv, rotary, scale, queries } = append;
    let dim = shape.head_dim;
    let (q, kv) = qkv.split_at(shape.queries_width());
    let (keys, values) = kv.split_at(shape.kv_heads() * dim);
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
    for (query, rotated) in q.chunks_exact(dim).zip(queries.chunks_exact_mut(dim)) {
        rotary.rotate(position, query, scale, rotated);
    }
    let mut rotated = [0.0; HEAD_DIM_MAX];
    let mut narrow = [E::default(); HEAD_DIM_MAX];
    for (kv_head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
        rotary.rotate(position, key, 1.0, &mut rotated[..dim]);
        // SAFETY: `dim` is a multiple of the width, and the position's key and value are within their page.
        unsafe {
            let head = Head::new(memory, &shape, kv_head, table);
            let (to_key, to_value) = (head.key(position), head.value(position));
            for d in (0..dim).step_by(WIDTH) {
                E::store(S::load(rotated.as_ptr().add(d)), narrow.as_mut_ptr().add(d));
                E::store(S::load(value.as_ptr().add(d)), to_value.add(d));
            }
            for (d, &float) in narrow[..dim].iter().enumerate() {
                *to_key.add(d * WIDTH) = float;
            }
        }
    }
}
