//! Numbers as Python prints them.

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

/// A value as Python's `str` prints it. Floats within lists are printed by minijinja.
pub(super) fn shown(value: &Value) -> String {
    match float(value) {
        Some(number) if value.kind() == ValueKind::Number && !value.is_integer() => float_shown(number),
        _ => value.to_string(),
    }
}

/// Output of a template: as [`shown`].
pub(super) fn write(out: &mut minijinja::Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        return minijinja::escape_formatter(out, state, &Value::from(shown(value)));
    }
    minijinja::escape_formatter(out, state, value)
}

/// A number as a float; booleans are numbers in Python.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).ok().or_else(|| whole(value).map(|whole| whole as f64)),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => None,
    }
}

/// A whole number that is no float.
pub(super) fn whole(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ => None,
    }
}

/// Python's `repr` of a float: the shortest digits that give it, with an exponent below 1e-4 and from 1e16 on.
fn float_shown(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        return with_exponent(&format!("{number:e}"));
    }
    let text = number.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// Rust's `1.5e20` as C's `1.5e+20`.
fn with_exponent(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, size) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
    format!("{digits}e{sign}{size:0>2}")
}

/// A positive number in C's formats `e`, `f` and `g`.
pub(super) fn formatted(number: f64, kind: char, precision: usize, keep_zeros: bool) -> String {
    if !number.is_finite() {
        return if number.is_nan() { "nan" } else { "inf" }.to_owned();
    }
    match kind {
        'f' => format!("{number:.precision$}"),
        'e' => with_exponent(&format!("{number:.precision$e}")),
        _ => {
            let significant = precision.max(1);
            let scientific = format!("{number:.*e}", significant - 1);
            let exponent: i64 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
            let short = |text: &str| match text.contains('.') && !keep_zeros {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            if (-4..significant as i64).contains(&exponent) {
                let places = usize::try_from(significant as i64 - 1 - exponent).unwrap_or(0);
                return short(&format!("{number:.places$}"));
            }
            let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific.as_str(), "0"));
            with_exponent(&format!("{}e{exponent}", short(digits)))
        }
    }
}
