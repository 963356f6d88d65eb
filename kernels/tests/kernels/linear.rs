//! Every path over awkward shapes: against the definition in f64, against each other, and against itself alone.
#![allow(unsafe_code)] // Ranges of columns are computed one after the other.

use crate::common::{How, Matrix, OwnedAdapter, levels, multiply, quantized, random, rows};
use rand::Rng;
use slm_kernels::{Activations, BLOCK, Format, Level, Linear, Rows, SourceError, Start, rowwise::rms_norm};

/// Inputs, outputs, rows: blocks and tiles that do not fill up, and every number of rows that a kernel takes.
const SHAPES: [(usize, usize, usize); 22] = [
    (1, 1, 1),
    (31, 15, 2),
    (32, 16, 3),
    (33, 17, 4),
    (63, 7, 5),
    (64, 8, 6),
    (65, 9, 7),
    (96, 24, 8),
    (100, 31, 9),
    (127, 33, 10),
    (128, 40, 11),
    (160, 41, 12),
    (192, 47, 13),
    (200, 48, 14),
    (320, 5, 24),
    (96, 56, 25),
    (64, 19, 47),
    (576, 100, 1),
    (576, 50, 16),
    (1536, 37, 3),
    (40, 20, 131),
    (72, 18, 600),
];

/// Miri is ten thousand times slower than the CPU: it gets the small ones.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    SHAPES.into_iter().filter(|(inputs, outputs, count)| !cfg!(miri) || inputs * outputs * count < 3_000)
}

#[test]
fn the_portable_path_is_the_definition_within_its_bound() {
    let mut random = random(1);
    for format in Format::ALL {
        for (inputs, outputs, count) in shapes() {
            let matrix = Matrix::random(format, inputs, outputs, &mut random);
            let x = rows(count, inputs, &mut random);
            let y = multiply(How { level: Level::Portable, parts: 1 }, &matrix, &x, &[], None);
            let blocks = inputs.div_ceil(BLOCK) as f64;
            for row in 0..count {
                let x = &x[row * inputs..][..inputs];
                let (rounded, scales) = quantized(x);
                let plain: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                // A minimum's terms may cancel those of the quants, which count for themselves.
                let apart = if matches!(format, Format::Q4K | Format::Q5K) { 51.0 } else { 4.0 };
                for column in 0..outputs {
                    let got = f64::from(y[row * outputs + column]);
                    let (want, size) = matrix.output(column, &rounded);
                    let sizes = size + apart * rounded.iter().map(|x| x.abs()).sum::<f64>();
                    let bound = (blocks + 4.0) * f64::from(f32::EPSILON) * sizes;
                    assert!(
                        (got - want).abs() <= bound,
                        "{format:?} {inputs}x{outputs} row {row} of {count}, column {column}: {got} for {want}"
                    );
                    let (want, _) = matrix.output(column, &plain);
                    let weights = &matrix.weights[column * inputs..][..inputs];
                    let rounding: f64 = weights.iter().zip(&scales).map(|(w, s)| 0.504 * w.abs() * s).sum();
                    assert!((got - want).abs() <= rounding + bound, "{format:?}: {got} for {want} of plain floats");
                }
            }
        }
    }
}

#[test]
fn every_path_has_the_bits_of_the_portable_one() {
    let mut random = random(2);
    for level in levels() {
        for format in Format::ALL {
            for (inputs, outputs, count) in shapes() {
                let matrix = Matrix::random(format, inputs, outputs, &mut random);
                let x = rows(count, inputs, &mut random);
                let residual = rows(count, outputs, &mut random);
                for residual in [None, Some(residual.as_slice())] {
                    let expected = multiply(How { level: Level::Portable, parts: 1 }, &matrix, &x, &[], residual);
                    for parts in [1, 2, 5] {
                        let got = multiply(How { level, parts }, &matrix, &x, &[], residual);
                        assert_bits(&got, &expected, &format!("{level:?} {format:?} {inputs}x{outputs}, {count} rows"));
                    }
                }
            }
        }
    }
}

const COMPANY: usize = if cfg!(miri) { 13 } else { 31 };
const WIDEST: usize = if cfg!(miri) { 70 } else { 300 };

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let mut random = random(3);
    for level in levels() {
        for format in Format::ALL {
            let (inputs, outputs) = (random.random_range(1..WIDEST), random.random_range(1..WIDEST / 3));
            let matrix = Matrix::random(format, inputs, outputs, &mut random);
            let x = rows(COMPANY, inputs, &mut random);
            let alone: Vec<Vec<f32>> =
                x.chunks(inputs).map(|row| multiply(How { level, parts: 1 }, &matrix, row, &[], None)).collect();
            for count in (1..=COMPANY).rev() {
                let y = multiply(How { level, parts: 1 }, &matrix, &x[..count * inputs], &[], None);
                for (row, y) in y.chunks(outputs).enumerate() {
                    assert_bits(y, &alone[row], &format!("{level:?} {format:?} row {row} of {count}"));
                }
            }
        }
    }
}

#[test]
fn a_residual_may_stand_where_the_outputs_go() {
    let mut random = random(4);
    let matrix = Matrix::random(Format::Q4Min32, 40, 21, &mut random);
    let (x, residual) = (rows(7, 40, &mut random), rows(7, 21, &mut random));
    for level in levels() {
        let expected = multiply(How { level, parts: 1 }, &matrix, &x, &[], Some(&residual));
        let mut activations = Activations::default();
        activations.quantize(level, &x, 40);
        let linear =
            Linear { matrix: matrix.packed.weights().into(), x: &activations, start: Start::InPlace, adapters: None };
        let mut y = residual.clone();
        linear.all(level, &mut y);
        assert_bits(&y, &expected, &format!("{level:?}"));
    }
}

#[test]
fn rows_that_are_not_finite_give_nan_and_spoil_no_other() {
    let mut random = random(5);
    let matrix = Matrix::random(Format::Q4Scale32, 64, 20, &mut random);
    let mut x = rows(3, 64, &mut random);
    for level in levels() {
        let before = multiply(How { level, parts: 1 }, &matrix, &x, &[], None);
        let finite = std::mem::replace(&mut x[64 + 5], f32::INFINITY);
        let after = multiply(How { level, parts: 1 }, &matrix, &x, &[], None);
        assert!(after[20..40].iter().all(|y| y.is_nan()));
        assert_bits(&after[..20], &before[..20], "row before");
        assert_bits(&after[40..], &before[40..], "row after");
        x[64 + 5] = finite;
    }
}

#[test]
fn rows_with_different_adapters_share_a_step() {
    let mut random = random(6);
    for (in_8_bits, inputs, outputs, count, ranks) in [
        (false, 33, 50, 5, [[1, 2], [3, 1], [8, 8]]),
        (true, 33, 50, 5, [[1, 2], [3, 1], [8, 8]]),
        (true, 96, 70, 13, [[16, 16], [4, 60], [1, 1]]),
        (false, 160, 333, 9, [[64, 64], [2, 7], [5, 32]]),
        (true, 160, 333, 9, [[64, 64], [2, 7], [5, 32]]),
        (true, 64, 600, 40, [[8, 3], [16, 1], [32, 33]]),
        (true, 40, 50, 3, [[513, 2], [600, 512], [1, 1025]]),
    ]
    .into_iter()
    .take(if cfg!(miri) { 2 } else { 7 })
    {
        let matrix = Matrix::random(Format::Q4Scale32, inputs, outputs, &mut random);
        let x = rows(count, inputs, &mut random);
        let adapters = ranks.map(|ranks| OwnedAdapter::random(in_8_bits, ranks, inputs, outputs, &mut random));
        // The fourth choice is no adapter.
        let choices: Vec<usize> = (0..count).map(|_| random.random_range(0..4)).collect();
        let tokens = |which| (0..count as u32).filter(|&t| choices[t as usize] == which).collect::<Vec<_>>();
        let shares: Vec<_> = adapters.iter().enumerate().map(|(i, adapter)| (adapter, tokens(i))).collect();
        let base = multiply(How { level: Level::Portable, parts: 1 }, &matrix, &x, &[], None);
        let expected = multiply(How { level: Level::Portable, parts: 1 }, &matrix, &x, &shares, None);
        for (row, choice) in choices.iter().enumerate() {
            let cells = row * outputs..(row + 1) * outputs;
            let Some(adapter) = adapters.get(*choice) else {
                assert_bits(&expected[cells.clone()], &base[cells], "row without an adapter");
                continue;
            };
            let (adds, off) = adapter.adds(&x[row * inputs..][..inputs]);
            for (column, cell) in cells.enumerate() {
                let want = f64::from(base[cell]) + adds[column];
                let bound = off + f64::from(f32::EPSILON) * 4.0 * (want.abs() + adds[column].abs());
                let got = f64::from(expected[cell]);
                assert!((got - want).abs() <= bound, "row {row} column {column}: {got} for {want} within {bound}");
            }
        }
        for level in levels() {
            for parts in [1, 3] {
                let got = multiply(How { level, parts }, &matrix, &x, &shares, None);
                assert_bits(&got, &expected, &format!("{level:?} {inputs}x{outputs}, {count} rows, {parts} parts"));
            }
            for (row, choice) in choices.iter().enumerate().take(12) {
                let share: Vec<_> = adapters.get(*choice).map(|adapter| (adapter, vec![0])).into_iter().collect();
                let x = &x[row * inputs..][..inputs];
                let alone = multiply(How { level, parts: 1 }, &matrix, x, &share, None);
                assert_bits(&alone, &expected[row * outputs..][..outputs], &format!("{level:?} row {row} alone"));
            }
        }
    }
}

#[test]
fn rows_may_be_made_and_quantized_at_once() {
    let mut random = random(8);
    let matrix = Matrix::random(Format::Q4Min32, 100, 30, &mut random);
    let (x, gain) = (rows(14, 100, &mut random), vec![0.7; 100]);
    for level in levels() {
        let norm = |row: usize, out: &mut [f32]| rms_norm(level, &x[row * 100..][..100], &gain, 1e-5, out);
        let mut normed = vec![0.0; 14 * 100];
        normed.chunks_mut(100).enumerate().for_each(|(row, out)| norm(row, out));
        let expected = multiply(How { level, parts: 1 }, &matrix, &normed, &[], None);
        let mut activations = Activations::default();
        let mut scratch = vec![f32::NAN; 100];
        let quantizer = activations.reshape(14, 100);
        for rows in [5..14, 0..5] {
            // SAFETY: one thread.
            unsafe { quantizer.rows_with(level, &mut scratch, rows, norm) };
        }
        let mut y = vec![f32::NAN; 14 * 30];
        // SAFETY: all rows were filled by this thread.
        let x = unsafe { quantizer.filled() };
        Linear { matrix: matrix.packed.weights().into(), x, start: Start::Zero, adapters: None }.all(level, &mut y);
        assert_bits(&y, &expected, &format!("{level:?}"));
    }
}

#[test]
fn threads_may_share_the_work() {
    let mut random = random(7);
    let matrix = Matrix::random(Format::Q8Scale32, 96, 200, &mut random);
    let x = rows(30, 96, &mut random);
    let level = Level::best();
    let expected = multiply(How { level, parts: 1 }, &matrix, &x, &[], None);
    let mut activations = Activations::default();
    {
        let quantizer = activations.reshape(30, 96);
        let (quantizer, x) = (&quantizer, x.as_slice());
        std::thread::scope(|scope| {
            for rows in [0..7, 7..13, 13..30] {
                // SAFETY: each row once.
                scope.spawn(move || unsafe { quantizer.rows(level, x, rows) });
            }
        });
    }
    let mut y = vec![f32::NAN; 30 * 200];
    let out = Rows::new(&mut y, 200);
    let linear = Linear { matrix: matrix.packed.weights().into(), x: &activations, start: Start::Zero, adapters: None };
    std::thread::scope(|scope| {
        for part in 0..4 {
            // SAFETY: ranges do not overlap.
            scope.spawn(move || unsafe { linear.columns(level, linear.range(part, 4), out) });
        }
    });
    assert_bits(&y, &expected, "threads");
}

#[track_caller]
fn assert_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.to_bits() == want.to_bits(), "{what}: [{i}] {got} for {want}");
    }
}

#[test]
fn parts_in_different_formats_have_the_bits_of_each_alone() {
    let mut random = random(12);
    let (inputs, count) = (288, 13);
    let x = rows(count, inputs, &mut random);
    for level in levels() {
        let parts: Vec<(Format, Matrix)> = [(Format::Q4K, 48), (Format::Q8Scale32, 16), (Format::Q6K, 21)]
            .map(|(format, outputs)| (format, Matrix::random(format, inputs, outputs, &mut random)))
            .into();
        let outputs: usize = parts.iter().map(|(_, part)| part.packed.weights().outputs()).sum();
        let residual = rows(count, outputs, &mut random);
        let bytes: Vec<u8> = parts.iter().flat_map(|(_, part)| part.packed.bytes().iter().copied()).collect();
        let shape: Vec<_> = parts.iter().map(|(format, part)| (*format, part.packed.weights().outputs())).collect();
        let matrix = slm_kernels::Matrix::new(inputs, &shape, &bytes).unwrap();
        let mut activations = Activations::default();
        activations.quantize(level, &x, inputs);
        for ranges in [1, 3] {
            let mut y = vec![f32::NAN; count * outputs];
            let linear = Linear { matrix, x: &activations, start: Start::Residual(&residual), adapters: None };
            for part in 0..ranges {
                // SAFETY: one thread.
                unsafe { linear.columns(level, linear.range(part, ranges), Rows::new(&mut y, outputs)) };
            }
            let mut first = 0;
            for (format, part) in &parts {
                let width = part.packed.weights().outputs();
                let cut = |of: &[f32]| -> Vec<f32> {
                    of.chunks(outputs).flat_map(|row| row[first..first + width].to_vec()).collect()
                };
                let alone = multiply(How { level, parts: 1 }, part, &x, &[], Some(&cut(&residual)));
                assert_bits(&cut(&y), &alone, &format!("{level:?} {format:?}"));
                first += width;
            }
        }
        let mut column = vec![0.0; inputs];
        matrix.column(70, &mut column);
        let wanted = &parts[2].1.weights[6 * inputs..][..inputs];
        assert!(column.iter().zip(wanted).all(|(got, want)| (f64::from(*got) - want).abs() <= 1e-6 * want.abs()));
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let part =
        |inputs, parts: &[(Format, usize)], bytes: &[u8]| slm_kernels::Matrix::new(inputs, parts, bytes).map(|_| ());
    let q4 = Format::Q4Scale32;
    assert_eq!(part(32, &[], &[]), Err(SourceError::Parts { parts: 0, max: 3 }));
    assert_eq!(part(32, &[(q4, 16); 4], &[]), Err(SourceError::Parts { parts: 4, max: 3 }));
    assert_eq!(part(32, &[(q4, 17), (q4, 16)], &[]), Err(SourceError::Unaligned { outputs: 17, tile: 16 }));
    let bytes = vec![0; 2 * q4.packed_len(32, 16)];
    assert_eq!(part(32, &[(q4, 16); 2], &bytes), Ok(()));
    assert!(matches!(part(32, &[(q4, 16); 2], &bytes[1..]), Err(SourceError::Size { .. })));
    assert!(matches!(part(32, &[(q4, 16)], &bytes), Err(SourceError::Size { .. })));
}
