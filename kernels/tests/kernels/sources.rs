//! Quantised weights as others store them, taken over without a second rounding.

use crate::common::{levels, random};
use half::f16;
use rand::{Rng, RngCore};
use slm_kernels::{Activations, Block, Format, Linear, Packed, SourceError, Start, Weights};

/// Each weight, by multiplying with rows that have a single one: exact but for f32's roundings.
fn dequantize(packed: &Packed) -> Vec<f64> {
    let weights = packed.weights();
    let (k, n) = (weights.inputs(), weights.outputs());
    let mut identity = vec![0.0; k * k];
    for i in 0..k {
        identity[i * k + i] = 127.0;
    }
    let mut columns = vec![0.0; n * k];
    for level in levels() {
        let mut x = Activations::default();
        x.quantize(level, &identity, k);
        let mut y = vec![f32::NAN; k * n];
        let linear = Linear { matrix: weights.into(), x: &x, start: Start::Zero, adapters: None };
        linear.all(level, &mut y);
        for i in 0..k {
            for column in 0..n {
                columns[column * k + i] = f64::from(y[i * n + column]) / 127.0;
            }
        }
    }
    let mut column = vec![0.0; k];
    for (index, by_product) in columns.chunks(k).enumerate() {
        weights.column(index, &mut column);
        assert_close(by_product, &column.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    }
    columns
}

fn assert_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // The parts of a sum with a minimum are up to 16 times as large as the sum.
        assert!((got - want).abs() <= 1e-6 * (want.abs() + 0.5), "{i}: {got} for {want}");
    }
}

fn halves(random: &mut impl Rng) -> (f16, f64) {
    let half = f16::from_f32_const(random.random_range(-0.1..0.1));
    (half, half.to_f64_const())
}

#[test]
fn gguf_blocks_are_carried_over() {
    let mut random = random(11);
    let (k, n) = (96, 21);
    let (mut q4_0, mut q4_1, mut q8_0) = (Vec::new(), Vec::new(), Vec::new());
    let (mut w4_0, mut w4_1, mut w8_0) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..k / 32 * n {
        let ((d, scale), (m, minimum)) = (halves(&mut random), halves(&mut random));
        let mut bytes = [0u8; 32];
        random.fill_bytes(&mut bytes);
        let nibble = |i: usize| f64::from(if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 });
        q4_0.extend(d.to_le_bytes().iter().chain(&bytes[..16]));
        w4_0.extend((0..32).map(|i| scale * (nibble(i) - 8.0)));
        q4_1.extend(d.to_le_bytes().iter().chain(&m.to_le_bytes()).chain(&bytes[..16]));
        w4_1.extend((0..32).map(|i| scale * nibble(i) + minimum));
        q8_0.extend(d.to_le_bytes().iter().chain(&bytes));
        w8_0.extend(bytes.iter().map(|&byte| scale * f64::from(byte as i8)));
    }
    let packed = |format, block: &dyn Fn(usize) -> Block| {
        Packed::pack(format, k, n, |column, index| block(column * (k / 32) + index))
    };
    let q4_0 = packed(Format::Q4Scale32, &|index| Block::from_q4_0(&q4_0.as_chunks().0[index]));
    let q4_1 = packed(Format::Q4Min32, &|index| Block::from_q4_1(&q4_1.as_chunks().0[index]));
    let q8_0 = packed(Format::Q8Scale32, &|index| Block::from_q8_0(&q8_0.as_chunks().0[index]));
    assert_close(&dequantize(&q4_0), &w4_0);
    assert_close(&dequantize(&q4_1), &w4_1);
    assert_close(&dequantize(&q8_0), &w8_0);
}

/// A type of GGUF, its reader, and blocks with the values that gguf-py computes; made by `convert/tests/fixtures/make_gguf.py`.
macro_rules! fixture {
    ($name:literal, $format:expr, $reader:expr, $block:literal, $bytes:literal) => {{
        let blocks = include_bytes!(concat!("../../../convert/tests/fixtures/blocks/", $name, ".bin")).as_slice();
        let values = include_bytes!(concat!("../../../convert/tests/fixtures/blocks/", $name, ".f32")).as_slice();
        let rows = blocks.len() / $bytes;
        let block = |row: usize, index: usize| $reader(&blocks.as_chunks::<$bytes>().0[row], index);
        let packed = Packed::pack($format, $block, rows, block);
        let mut column = vec![0.0; $block];
        for row in 0..rows {
            packed.weights().column(row, &mut column);
            let expected = &values.as_chunks::<4>().0[row * $block..][..$block];
            let expected: Vec<f32> = expected.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            assert_eq!(column, expected, "{} row {row}", $name);
        }
        dequantize(&packed);
    }};
}

#[test]
fn types_of_gguf_have_the_very_values_of_gguf_py() {
    fixture!("Q4_0", Format::Q4Scale32, |bytes, _| Block::from_q4_0(bytes), 32, 18);
    fixture!("Q5_0", Format::Q6Scale32, |bytes, _| Block::from_q5_0(bytes), 32, 22);
    fixture!("Q8_0", Format::Q8Scale32, |bytes, _| Block::from_q8_0(bytes), 32, 34);
    fixture!("Q4_K", Format::Q4K, Block::from_q4_k, 256, 144);
    fixture!("Q5_K", Format::Q5K, Block::from_q5_k, 256, 176);
    fixture!("Q6_K", Format::Q6K, Block::from_q6_k, 256, 210);
}

#[test]
fn what_does_not_fit_is_refused() {
    let packed = Packed::pack(Format::Q4Scale32, 32, 1, |_, _| Block::from_q4_0(&[0; 18]));
    let bytes = packed.bytes();
    assert!(Weights::new(Format::Q4Scale32, 32, 16, bytes).is_ok());
    for (format, inputs, outputs) in [(Format::Q8Scale32, 32, 1), (Format::Q4Scale32, 33, 1), (Format::Q4Scale32, 0, 0)]
    {
        let error = Weights::new(format, inputs, outputs, bytes).unwrap_err();
        assert!(matches!(error, SourceError::Size { got, .. } if got == bytes.len()), "{error}");
    }
}
