//! Attention over pages: against its formula in f64, against other cuts of the same step, and across instruction sets.

mod layer;

use std::num::NonZeroUsize;

use half::f16;
use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use slm_kernels::{
    Level, Rows,
    attention::{Attention, PAGE, Pages, Plan, Sequence, Shape, Stored},
    rowwise::rms_norm,
};

use self::layer::{EPSILON, Layer, Norms};
use crate::common::{levels, random};

/// The pages of a layer, full of what must never be used.
struct Memory {
    shape: Shape,
    wide: Vec<f32>,
    narrow: Vec<f16>,
    free: Vec<u32>,
}

impl Memory {
    fn new(layer: &Layer, pages: usize, random: &mut ChaCha8Rng) -> Self {
        let elements = pages * layer.shape.page_elements();
        let mut free: Vec<u32> = (0..pages as u32).collect();
        free.shuffle(random);
        let (wide, narrow) = if layer.narrow { (0, elements) } else { (elements, 0) };
        Self { shape: layer.shape, wide: vec![f32::NAN; wide], narrow: vec![f16::NAN; narrow], free }
    }

    fn take(&mut self, positions: usize) -> Vec<u32> {
        self.free.split_off(self.free.len() - positions.div_ceil(PAGE))
    }

    fn view(&mut self) -> Pages<'_> {
        if self.narrow.is_empty() {
            Pages::f32(self.shape, &mut self.wide)
        } else {
            Pages::f16(self.shape, &mut self.narrow)
        }
    }
}

/// New tokens of a text, whose earlier positions are in its pages.
struct Piece<'a> {
    text: &'a [f32],
    begin: usize,
    end: usize,
    pages: &'a [u32],
}

/// Way to compute a step.
#[derive(Clone, Copy)]
struct How {
    level: Level,
    threads: usize,
}

const ALONE: How = How { level: Level::Portable, threads: 1 };

/// One step: the outputs of each piece.
fn step(how: How, layer: &Layer, memory: &mut Memory, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
    let (shape, width) = (&layer.shape, layer.width());
    let sequences: Vec<Sequence<'_>> =
        pieces.iter().map(|p| Sequence { pages: p.pages, begin: p.begin, tokens: p.end - p.begin }).collect();
    let mut plan = if layer.bidirectional { Plan::bidirectional(*shape) } else { Plan::new(*shape) };
    plan.update(&sequences, how.threads);
    let qkv: Vec<f32> = pieces.iter().flat_map(|p| &p.text[p.begin * width..p.end * width]).copied().collect();
    let mut queries = vec![f32::NAN; plan.tokens() * shape.queries_width()];
    let mut out = queries.clone();
    let attention = Attention {
        plan: &plan,
        pages: memory.view(),
        queries: Rows::new(&mut queries, shape.queries_width()),
        scale: layer.scale(),
        window: layer.window.and_then(NonZeroUsize::new),
        soft_cap: layer.soft_cap,
        norm: layer.norm(),
        stored: layer.stored,
        gated: layer.gated,
        bias: layer.bias(),
    };
    attention.all(how.level, &qkv, &layer.rotary(), &mut out);
    let mut rest = out.as_slice();
    let mut outputs = Vec::new();
    for piece in pieces {
        let (own, others) = rest.split_at((piece.end - piece.begin) * shape.queries_width());
        outputs.push(own.to_vec());
        rest = others;
    }
    outputs
}

/// A text at once, alone.
fn whole(how: How, layer: &Layer, text: &[f32]) -> Vec<f32> {
    let positions = text.len() / layer.width();
    let mut memory = Memory::new(layer, positions.div_ceil(PAGE), &mut random(1));
    let pages = memory.take(positions);
    step(how, layer, &mut memory, &[Piece { text, begin: 0, end: positions, pages: &pages }]).remove(0)
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f64], layer: &Layer, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    // In f64 some rotated keys round to another half.
    let bound = if layer.narrow { 1e-3 } else { 2e-5 };
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() <= bound, "{what}: [{i}] {got} for {want}");
    }
}

#[track_caller]
fn assert_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.to_bits() == want.to_bits(), "{what}: [{i}] {got} for {want}");
    }
}

/// Heads, groups, sizes; what is special; how many positions.
fn cases() -> Vec<(String, Layer, usize)> {
    let mut cases = Vec::new();
    let lengths = [1, 31, 32, 33, 255, 256, 257, 700];
    let shapes = [(9, 3, 64), (2, 2, 16), (4, 1, 48), (8, 1, 128), (3, 3, 80), (14, 2, 256), (2, 1, 512)];
    for (i, (heads, kv_heads, dim)) in shapes.into_iter().enumerate() {
        for (j, length) in lengths.into_iter().enumerate() {
            // Plain Rust is slow: not every shape at every length.
            let skipped = length > [700, 700, 257, 257, 33, 33, 33][i] || (length == 256 && i > 1);
            // Miri is ten thousand times slower than the CPU.
            if skipped || (cfg!(miri) && (dim > 16 || length != 33)) {
                continue;
            }
            let mut layer = Layer::new(heads, kv_heads, dim);
            layer.narrow = (i + j) % 2 == 0;
            layer.window = [None, Some(1), Some(20), Some(256), None, Some(300)][(i + 2 * j) % 6];
            layer.soft_cap = [None, Some(5.0), None, Some(50.0)][(i + j) % 4];
            layer.interleaved = (i + j) % 3 == 1;
            let norms = |whole_token, after_rotary| Some(Norms::new(&layer.shape, whole_token, after_rotary));
            layer.norm = match (i + 3 * j) % 5 {
                0 => norms(false, false),
                1 => norms(false, true),
                2 => norms(true, false),
                _ => None,
            };
            let name = format!(
                "{heads}/{kv_heads} heads of {dim}, {length} positions, f16 {}, window {:?}, cap {:?}, interleaved {}, \
                 norm {}",
                layer.narrow,
                layer.window,
                layer.soft_cap,
                layer.interleaved,
                layer
                    .norm
                    .as_ref()
                    .map_or(0, |norm| 1 + usize::from(norm.whole_token) + 2 * usize::from(norm.after_rotary))
            );
            cases.push((name, layer, length));
        }
    }
    cases
}

#[test]
fn the_portable_path_is_the_formula() {
    let mut random = random(21);
    for (name, layer, length) in cases() {
        let text = layer.text(length, &mut random);
        let count = length.min(40);
        let got = whole(ALONE, &layer, &text);
        assert_close(
            &got[got.len() - count * layer.shape.queries_width()..],
            &layer.expected(&text, count),
            &layer,
            &name,
        );
    }
}

#[test]
fn tokens_of_an_encoder_see_the_later_ones_too() {
    let mut random = random(11);
    for (positions, window) in [(1, None), (31, None), (70, Some(9)), (300, None), (600, Some(65))] {
        let mut layer = Layer { bidirectional: true, window, ..Layer::new(4, 2, 32) };
        layer.rotary_dim = 0;
        let text = layer.text(positions, &mut random);
        let want = layer.expected(&text, positions);
        for threads in [1, 4] {
            let how = How { level: Level::best(), threads };
            assert_close(
                &whole(how, &layer, &text),
                &want,
                &layer,
                &format!("{positions} positions, window {window:?}"),
            );
        }
        assert_bits(
            &whole(ALONE, &layer, &text),
            &whole(How { level: Level::best(), threads: 4 }, &layer, &text),
            "bits",
        );
    }
}

#[test]
fn every_path_has_the_bits_of_the_portable_one() {
    let mut random = random(22);
    for (name, layer, length) in cases() {
        let text = layer.text(length, &mut random);
        let expected = whole(ALONE, &layer, &text);
        for level in levels() {
            for threads in [1, 64] {
                if (level, threads) == (Level::Portable, 1) {
                    continue;
                }
                let got = whole(How { level, threads }, &layer, &text);
                assert_bits(&got, &expected, &format!("{level:?}, {threads} threads, {name}"));
            }
        }
    }
}

#[test]
fn a_prompt_in_chunks_beside_others_has_the_bits_of_a_whole_one() {
    let mut random = random(23);
    let level = Level::best();
    for (name, layer, length) in cases() {
        let width = layer.shape.qkv_width();
        let out_width = layer.shape.queries_width();
        let texts: Vec<Vec<f32>> = [length, 70, 5].map(|length| layer.text(length, &mut random)).into();
        let expected: Vec<Vec<f32>> = texts.iter().map(|text| whole(How { level, threads: 1 }, &layer, text)).collect();
        let pages = texts.iter().map(|text| (text.len() / width).div_ceil(PAGE)).sum();
        let mut memory = Memory::new(&layer, pages, &mut random);
        let tables: Vec<Vec<u32>> = texts.iter().map(|text| memory.take(text.len() / width)).collect();
        let mut done = vec![0; texts.len()];
        while (0..texts.len()).any(|i| done[i] < texts[i].len() / width) {
            let mut pieces = Vec::new();
            let mut which = Vec::new();
            for (i, text) in texts.iter().enumerate() {
                let left = text.len() / width - done[i];
                let tokens = [1, 0, 2, 17, 100, 300][random.random_range(0..6)].min(left);
                if tokens > 0 {
                    pieces.push(Piece { text, begin: done[i], end: done[i] + tokens, pages: &tables[i] });
                    which.push(i);
                }
            }
            let threads = [1, 2, 16][random.random_range(0..3)];
            let got = step(How { level, threads }, &layer, &mut memory, &pieces);
            for ((got, piece), i) in got.iter().zip(&pieces).zip(which) {
                let want = &expected[i][piece.begin * out_width..piece.end * out_width];
                assert_bits(got, want, &format!("tokens {}..{} of text {i}, {name}", piece.begin, piece.end));
                done[i] = piece.end;
            }
        }
    }
}

#[test]
fn sequences_share_the_pages_of_a_common_prefix() {
    let mut random = random(24);
    let mut layer = Layer::new(4, 2, 32);
    layer.narrow = true;
    let width = layer.shape.qkv_width();
    let prefix = layer.text(3 * PAGE, &mut random);
    let texts: Vec<Vec<f32>> =
        [1, 40, 9].map(|length| prefix.iter().copied().chain(layer.text(length, &mut random)).collect()).into();
    for level in levels() {
        let mut memory = Memory::new(&layer, 3 + 1 + 2 + 1, &mut random);
        let shared = memory.take(3 * PAGE);
        let tables: Vec<Vec<u32>> =
            texts.iter().map(|text| [shared.clone(), memory.take(text.len() / width - 3 * PAGE)].concat()).collect();
        step(
            How { level, threads: 2 },
            &layer,
            &mut memory,
            &[Piece { text: &prefix, begin: 0, end: 3 * PAGE, pages: &shared }],
        );
        let pieces: Vec<Piece<'_>> = texts
            .iter()
            .zip(&tables)
            .map(|(text, pages)| Piece { text, begin: 3 * PAGE, end: text.len() / width, pages })
            .collect();
        let got = step(How { level, threads: 2 }, &layer, &mut memory, &pieces);
        for (got, text) in got.iter().zip(&texts) {
            let alone = whole(ALONE, &layer, text);
            assert_bits(got, &alone[alone.len() - got.len()..], &format!("{level:?}"));
        }
    }
}

#[test]
fn pages_before_every_window_are_not_read() {
    let mut random = random(25);
    let mut layer = Layer::new(6, 2, 64);
    layer.window = Some(40);
    let text = layer.text(600, &mut random);
    let mut memory = Memory::new(&layer, 600usize.div_ceil(PAGE), &mut random);
    let mut pages = memory.take(600);
    for level in levels() {
        let expected = whole(How { level, threads: 1 }, &layer, &text);
        step(
            How { level, threads: 1 },
            &layer,
            &mut memory,
            &[Piece { text: &text, begin: 0, end: 590, pages: &pages }],
        );
        let used = (590 + 1 - 40) / PAGE;
        let table = pages.clone();
        let freed = pages[0] as usize;
        pages[..used].fill(freed as u32);
        let elements = layer.shape.page_elements();
        memory.wide[freed * elements..][..elements].fill(f32::NAN);
        for threads in [1, 64] {
            let last = Piece { text: &text, begin: 590, end: 600, pages: &pages };
            let got = step(How { level, threads }, &layer, &mut memory, &[last]).remove(0);
            assert_bits(&got, &expected[expected.len() - got.len()..], &format!("{level:?}, {threads} threads"));
        }
        pages = table;
    }
}

#[test]
fn some_of_a_head_may_be_rotated_or_nothing() {
    let mut random = random(26);
    for rotary_dim in [0, 16, 24] {
        let mut layer = Layer::new(2, 1, 48);
        layer.rotary_dim = rotary_dim;
        let text = layer.text(50, &mut random);
        for level in levels() {
            let got = whole(How { level, threads: 1 }, &layer, &text);
            assert_close(&got, &layer.expected(&text, 50), &layer, &format!("{level:?}, {rotary_dim} of 48"));
        }
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_no_other_sequence() {
    let mut random = random(27);
    let layer = Layer::new(4, 2, 32);
    let width = layer.shape.qkv_width();
    let texts: Vec<Vec<f32>> = (0..3).map(|_| layer.text(20, &mut random)).collect();
    let mut bad = texts.clone();
    bad[1][19 * width] = f32::NAN;
    for level in levels() {
        let mut outputs = [&texts, &bad].map(|texts| {
            let mut memory = Memory::new(&layer, 3, &mut random);
            let pages: Vec<Vec<u32>> = texts.iter().map(|_| memory.take(20)).collect();
            let piece = |i: usize| Piece { text: &texts[i], begin: 0, end: 20, pages: &pages[i] };
            step(How { level, threads: 1 }, &layer, &mut memory, &[piece(0), piece(1), piece(2)])
        });
        let dim = layer.shape.head_dim();
        let last = 19 * layer.shape.queries_width();
        assert!(outputs[1][1][last..last + dim].iter().all(|x| x.is_nan()), "{level:?}");
        let (good, bad) = outputs.split_at_mut(1);
        bad[0][1][last..last + dim].copy_from_slice(&good[0][1][last..last + dim]);
        for (good, bad) in good[0].iter().zip(&bad[0]) {
            assert_bits(bad, good, &format!("{level:?}"));
        }
    }
}

#[test]
fn scores_far_apart_leave_the_largest() {
    let mut random = random(28);
    let layer = Layer::new(1, 1, 16);
    let mut text = layer.text(300, &mut random);
    text.iter_mut().for_each(|x| *x *= 1e4);
    for level in levels() {
        let got = whole(How { level, threads: 1 }, &layer, &text);
        let want = layer.expected(&text, 300);
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 1e-5 * want.abs() + 1e-2, "{level:?}: {got} for {want}");
        }
    }
}

/// Values that are keys, values with a norm, and pages that another layer wrote: all are what plain values would give.
#[test]
fn what_is_stored_may_be_less_than_keys_and_values() {
    let mut random = random(31);
    for narrow in [false, true] {
        let mut layer = Layer { narrow, norm: None, ..Layer::new(4, 2, 32) };
        layer.norm = Some(Norms::new(&layer.shape, false, false));
        let (q, kv) = (layer.shape.queries_width(), layer.shape.kv_width());
        let text = layer.text(40, &mut random);
        // Rows with what `values` makes of the keys in place of the values.
        let rows = |values: &dyn Fn(&[f32]) -> Vec<f32>| -> Vec<f32> {
            let row = |row: &[f32]| [&row[..q + kv], &values(&row[q..q + kv])].concat();
            text.chunks(q + 2 * kv).flat_map(row).collect()
        };
        let normed = |keys: &[f32]| -> Vec<f32> {
            let mut out = vec![0.0; keys.len()];
            for (keys, out) in keys.chunks(32).zip(out.chunks_mut(32)) {
                rms_norm(Level::Portable, keys, &[1.0; 32], EPSILON, out);
            }
            out
        };
        let plain = rows(&|keys| keys.to_vec());
        let expected = [whole(ALONE, &layer, &plain), whole(ALONE, &layer, &rows(&normed))];
        for level in levels() {
            let how = How { level, threads: 2 };
            for (value_norm, expected) in [None, Some(EPSILON)].into_iter().zip(&expected) {
                let keys: Vec<f32> = text.chunks(q + 2 * kv).flat_map(|row| &row[..q + kv]).copied().collect();
                for (keys_as_values, text) in [(false, &plain), (true, &keys)] {
                    let stored = Stored::Own { keys_as_values, value_norm };
                    assert_bits(&whole(how, &Layer { stored, ..layer.clone() }, text), expected, "stored");
                }
            }
            let mut memory = Memory::new(&layer, 2, &mut random);
            let pages = memory.take(40);
            let piece = |text| [Piece { text, begin: 0, end: 40, pages: &pages }];
            let before = step(how, &layer, &mut memory, &piece(&plain));
            let queries: Vec<f32> = text.chunks(q + 2 * kv).flat_map(|row| &row[..q]).copied().collect();
            let reader = Layer { stored: Stored::Nothing, ..layer.clone() };
            assert_bits(&step(how, &reader, &mut memory, &piece(&queries))[0], &before[0], "pages of another layer");
        }
    }
}

#[test]
fn sigmoids_of_gates_multiply_the_results_of_their_heads() {
    let mut random = random(31);
    let mut layer = Layer::new(4, 2, 32);
    layer.norm = Some(Norms::new(&layer.shape, false, false));
    let (dim, heads) = (layer.shape.head_dim(), layer.shape.heads());
    let text = layer.text(40, &mut random);
    let mut gates = || -> Vec<f32> { (0..40 * heads * dim).map(|_| random.random_range(-6.0..6.0)).collect() };
    let gates = gates();
    let plain = whole(ALONE, &layer, &text);
    let mut with_gates = Vec::new();
    for (row, gates) in text.chunks(layer.width()).zip(gates.chunks(heads * dim)) {
        let (queries, rest) = row.split_at(heads * dim);
        for (query, gate) in queries.chunks(dim).zip(gates.chunks(dim)) {
            with_gates.extend_from_slice(query);
            with_gates.extend_from_slice(gate);
        }
        with_gates.extend_from_slice(rest);
    }
    layer.gated = true;
    let first = whole(ALONE, &layer, &with_gates);
    for ((result, plain), gate) in first.iter().zip(&plain).zip(&gates) {
        let want = f64::from(*plain) / (1.0 + (-f64::from(*gate)).exp());
        assert!((f64::from(*result) - want).abs() <= 1e-6 * want.abs(), "{result} for {want}");
    }
    for level in levels() {
        assert_bits(&whole(How { level, threads: 2 }, &layer, &with_gates), &first, "gates");
    }
}

#[test]
fn a_bias_by_distance_is_added_to_scores() {
    let mut random = random(37);
    for (heads, kv_heads, window, soft_cap) in [(2, 2, None, None), (4, 2, Some(7), Some(5.0))] {
        let length = if cfg!(miri) { 33 } else { 300 };
        let mut layer = Layer { bidirectional: true, window, soft_cap, ..Layer::new(heads, kv_heads, 16) };
        // More positions than the text has.
        layer.bias = (0..heads * (2 * (length + 5) - 1)).map(|_| random.random_range(-4.0..4.0)).collect();
        let text = layer.text(length, &mut random);
        let first = whole(ALONE, &layer, &text);
        assert_close(&first, &layer.expected(&text, length), &layer, "bias");
        for level in levels() {
            assert_bits(&whole(How { level, threads: 3 }, &layer, &text), &first, "bias");
        }
    }
}

#[test]
#[should_panic(expected = "a bias of 4 positions for 5")]
fn a_bias_that_ends_too_early_is_refused() {
    let layer = Layer { bias: vec![0.0; 7], ..Layer::new(1, 1, 16) };
    whole(ALONE, &layer, &layer.text(5, &mut random(1)));
}

#[test]
fn threads_may_share_the_work() {
    let mut random = random(29);
    let layer = Layer::new(6, 2, 64);
    let (width, out_width) = (layer.shape.qkv_width(), layer.shape.queries_width());
    let text = layer.text(700, &mut random);
    let expected = whole(How { level: Level::best(), threads: 1 }, &layer, &text);
    let mut memory = Memory::new(&layer, 700usize.div_ceil(PAGE), &mut random);
    let pages = memory.take(700);
    let mut plan = Plan::new(layer.shape);
    let (mut queries, mut out) = (vec![0.0; 699 * out_width], vec![0.0; 699 * out_width]);
    // A prompt, then one token whose positions are split among threads, twice as two layers would.
    for (begin, end) in [(0, 699), (699, 700), (699, 700)] {
        plan.update(&[Sequence { pages: &pages, begin, tokens: end - begin }], 4);
        let attention = Attention {
            plan: &plan,
            pages: memory.view(),
            queries: Rows::new(&mut queries, out_width),
            scale: layer.scale(),
            window: None,
            soft_cap: None,
            norm: None,
            stored: Stored::PLAIN,
            gated: false,
            bias: None,
        };
        let (tokens, out_rows) = (plan.tokens(), Rows::new(&mut out, out_width));
        let (qkv, rotary) = (&text[begin * width..end * width], layer.rotary());
        std::thread::scope(|scope| {
            for part in 0..4 {
                let range = part * tokens / 4..(part + 1) * tokens / 4;
                // SAFETY: ranges do not overlap.
                scope.spawn(move || unsafe { attention.append(Level::best(), range, qkv, &rotary) });
            }
        });
        for _layer in 0..2 {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let items = (thread..plan.items()).step_by(4);
                    scope.spawn(move || {
                        for item in items {
                            // SAFETY: each item once, and threads end before the next layer.
                            unsafe { attention.attend(Level::best(), item, out_rows) };
                        }
                    });
                }
            });
        }
        assert_bits(&out[..tokens * out_width], &expected[begin * out_width..end * out_width], "threads");
    }
}

#[test]
#[should_panic(expected = "attention takes multiples of 16 up to 512")]
fn heads_that_are_not_whole_vectors_are_refused() {
    Shape::new(4, 2, 40);
}

#[test]
#[should_panic(expected = "2 pages of 32 are too few for 65 positions")]
fn a_token_without_a_page_is_refused() {
    Plan::new(Shape::new(1, 1, 16)).update(&[Sequence { pages: &[0, 1], begin: 60, tokens: 5 }], 1);
}
