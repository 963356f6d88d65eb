//! What all layers of the forms `Standard` and `Delta` share: which keys a token sees, and cosines and sines of its position.

use std::collections::BTreeSet;

use super::{GraphError, builder::Builder, rows::rope_names};
use crate::{architecture::Attention, onnx::Attribute};

/// Score of a key that a token does not see, or what is added to it: the exponential is zero, and 16 bits hold it.
pub(super) const UNSEEN: f32 = -30000.0;

/// Name of the mask of [`standard`] for `attention`.
pub(super) fn mask_name(attention: &Attention) -> String {
    seen("keys", attention.window)
}

/// Names of the masks of [`delta`] for `attention`: of earlier keys, and of new ones.
pub(super) fn mask_names(attention: &Attention) -> [String; 2] {
    ["past", "new"].map(|keys| grouped(keys, attention.window, group(attention)))
}

/// Names of cosines and sines of rotary embedding `rope`, `[rows, 1, tokens, dim / 2]`.
pub(super) fn gathered_names(rope: usize) -> [String; 2] {
    rope_names(rope).map(|name| format!("{name}.tokens"))
}

/// Query heads for each head of keys.
pub(super) fn group(attention: &Attention) -> usize {
    attention.heads / attention.kv_heads
}

/// Masks that are true for keys that a token sees, bool `[rows, 1, tokens, positions]`.
pub(super) fn standard(b: &mut Builder<'_>) -> Result<(), GraphError> {
    column(b)?;
    b.node("", "LessOrEqual", &["key_positions", "position.column"], &[&seen("keys", None)], vec![]);
    let windows: BTreeSet<_> = b.architecture().layers.iter().filter_map(|layer| layer.attention()?.window).collect();
    for window in windows {
        begin(b, window)?;
        near(b, "keys", "key_positions", window);
    }
    Ok(())
}

/// Masks that are added to scores, for the queries of a group under one another: of earlier keys `[rows, 1, group * tokens,
/// positions]`, and of new ones `[rows, 1, group * tokens, tokens]`.
pub(super) fn delta(b: &mut Builder<'_>) -> Result<(), GraphError> {
    column(b)?;
    tables(b)?;
    b.i64s("axes.row", &[1, 2, 3])?;
    b.i64s("axes.line", &[1, 2])?;
    b.node("", "Unsqueeze", &["past", "axes.row"], &["past.column"], vec![]);
    b.node("", "Unsqueeze", &["position_ids", "axes.line"], &["position.line"], vec![]);
    b.node("", "Less", &["key_positions", "past.column"], &[&seen("past", None)], vec![]);
    b.node("", "LessOrEqual", &["position.line", "position.column"], &[&seen("new", None)], vec![]);
    b.floats("unseen", &[], &[UNSEEN])?;
    // Where the new keys begin among all.
    b.node("", "Shape", &["key_positions"], &["positions.count"], vec![]);
    b.i64s("axis.first", &[0])?;
    b.i64s("axis.last", &[-1])?;
    b.i64s("end", &[i64::MAX])?;
    let layers = b.architecture().layers.iter();
    let kinds = layers.filter_map(|layer| layer.attention()).map(|attention| (attention.window, group(attention)));
    let kinds: BTreeSet<_> = kinds.collect();
    let windows: BTreeSet<_> = kinds.iter().map(|(window, _)| *window).collect();
    for window in windows {
        if let Some(window) = window {
            begin(b, window)?;
            near(b, "past", "key_positions", window);
            near(b, "new", "position.line", window);
        }
        for keys in ["past", "new"] {
            b.node("", "Where", &[&seen(keys, window), "zero", "unseen"], &[&grouped(keys, window, 1)], vec![]);
        }
    }
    for (window, group) in kinds.into_iter().filter(|(_, group)| *group > 1) {
        for keys in ["past", "new"] {
            let one = grouped(keys, window, 1);
            let out = grouped(keys, window, group);
            if keys == "past" && window.is_none() {
                // The same for all queries of a row: it has one of them.
                b.node("", "Identity", &[&one], &[&out], vec![]);
            } else {
                b.node("", "Concat", &vec![one.as_str(); group], &[&out], vec![Attribute::int("axis", 2)]);
            }
        }
    }
    Ok(())
}

/// Positions of the new tokens, `[rows, 1, tokens, 1]`.
fn column(b: &mut Builder<'_>) -> Result<(), GraphError> {
    b.i64s("axes.column", &[1, 3])?;
    b.node("", "Unsqueeze", &["position_ids", "axes.column"], &["position.column"], vec![]);
    Ok(())
}

/// Cosines and sines of the new tokens.
fn tables(b: &mut Builder<'_>) -> Result<(), GraphError> {
    b.i64s("axis.heads", &[1])?;
    for rope in 0..b.architecture().ropes.len() {
        for (table, out) in rope_names(rope).into_iter().zip(gathered_names(rope)) {
            let rows = format!("{table}.rows");
            b.node("", "Gather", &[&table, "position_ids"], &[&rows], vec![]);
            b.node("", "Unsqueeze", &[&rows, "axis.heads"], &[&out], vec![]);
        }
    }
    Ok(())
}

/// The last position that is before a window of that length.
fn begin(b: &mut Builder<'_>, window: usize) -> Result<(), GraphError> {
    let length = format!("window.{window}");
    b.i64s(&length, &[window as i64])?;
    b.node("", "Sub", &["position.column", &length], &[&format!("{length}.before")], vec![]);
    Ok(())
}

/// Keys within the window, among those that are seen without it.
fn near(b: &mut Builder<'_>, keys: &str, positions: &str, window: usize) {
    let (near, out) = (format!("near.{keys}.{window}"), seen(keys, Some(window)));
    b.node("", "Greater", &[positions, &format!("window.{window}.before")], &[&near], vec![]);
    b.node("", "And", &[&seen(keys, None), &near], &[&out], vec![]);
}

fn seen(keys: &str, window: Option<usize>) -> String {
    match window {
        Some(window) => format!("seen.{keys}.{window}"),
        None => format!("seen.{keys}"),
    }
}

fn grouped(keys: &str, window: Option<usize>, group: usize) -> String {
    format!("{}.added.{group}", seen(keys, window))
}
