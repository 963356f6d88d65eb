//! Methods of Python's strings and lists that minijinja's collection lacks or does otherwise.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::format;

/// Bound on padding, more than any template uses.
const WIDTH_MAX: usize = 1 << 16;

/// Callback for methods of values.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str().filter(|text| name == "format" && format::is_needed(text)) {
        let (text, args) = format::rewritten(text, args)?;
        return minijinja_contrib::pycompat::unknown_method_callback(state, &Value::from(text), name, &args);
    }
    let own = match (value.kind(), value.as_str()) {
        (_, Some(text)) => text_method(text, name, args)?,
        (ValueKind::Seq, None) => list_method(value, name, args)?,
        (ValueKind::Map, None) if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(value) => Ok(value),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn list_method(value: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "index" => {
            let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let items: Vec<Value> = value.try_iter()?.collect();
            let range = range(items.len(), start, end);
            let at = items[range.clone()].iter().position(|item| item == what).map(|at| range.start + at);
            at.map(Value::from).ok_or_else(|| failed(format!("{what} is not in the list")))?
        }
        "copy" => value.clone(),
        _ => return Ok(None),
    }))
}

/// Methods of `str`; `None` if unknown here.
fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "split" | "rsplit" => split(text, name == "rsplit", args)?,
        "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" => search(text, name, args)?,
        "partition" | "rpartition" => partition(text, name == "rpartition", args)?,
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "center" | "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let fill = fill.and_then(|fill| fill.chars().next()).unwrap_or(' ');
            Value::from(match name {
                "center" => centred(text, width, fill)?,
                "ljust" => format!("{text}{}", padding(text, width, fill)?),
                _ => format!("{}{text}", padding(text, width, fill)?),
            })
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            Value::from(format!("{sign}{}{digits}", padding(text, width, '0')?))
        }
        "expandtabs" => {
            let (args, named): (&[Value], Kwargs) = from_args(args)?;
            let (width,): (Option<usize>,) = from_args(args)?;
            let width = width.or(named.get("tabsize")?).unwrap_or(8);
            named.assert_all_used()?;
            Value::from(tabs_expanded(text, width)?)
        }
        "isdecimal" => Value::from(is_decimal(text)),
        "isidentifier" => {
            let is_letter = |letter: char| letter.is_alphabetic() || letter == '_';
            let rest = |letter: char| letter.is_alphanumeric() || letter == '_';
            Value::from(text.starts_with(is_letter) && text.chars().all(rest))
        }
        "title" => Value::from(titled(text)),
        "casefold" => Value::from(text.to_lowercase().replace('ß', "ss")),
        "swapcase" => {
            let swap = |letter: char| -> String {
                if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        _ => return Ok(None),
    }))
}

fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (args, named): (&[Value], Kwargs) = from_args(args)?;
    let (by, most): (Option<Value>, Option<i64>) = from_args(args)?;
    let by: Option<Value> = by.or(named.get("sep")?);
    let most = most.or(named.get("maxsplit")?).unwrap_or(-1);
    named.assert_all_used()?;
    let parts = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let by = by.as_ref().filter(|by| !by.is_none() && !by.is_undefined());
    let mut pieces: Vec<&str> = match by.map(|by| by.as_str().ok_or(by)) {
        Some(Ok("")) => return Err(failed("split: the separator is empty".to_owned())),
        Some(Err(other)) => return Err(failed(format!("split: the separator is a text, not {}", other.kind()))),
        Some(Ok(by)) if from_right => text.rsplitn(parts, by).collect(),
        Some(Ok(by)) => text.splitn(parts, by).collect(),
        None => words(text, parts, from_right),
    };
    if from_right {
        pieces.reverse();
    }
    Ok(pieces.into_iter().map(Value::from).collect())
}

/// At most `parts` words, from the left or from the right; the last one is the rest.
fn words(text: &str, parts: usize, from_right: bool) -> Vec<&str> {
    let (mut rest, mut pieces) = (text.trim(), Vec::new());
    while !rest.is_empty() && pieces.len() + 1 < parts {
        let at = if from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(at) = at else { break };
        let (left, right) = (rest[..at].trim_end(), rest[at..].trim_start());
        let (piece, others) = if from_right { (right, left) } else { (left, right) };
        pieces.push(piece);
        rest = others;
    }
    // With a limit, the rest keeps the white space at its outer end.
    let rest = match (pieces.len() + 1 >= parts, from_right) {
        (true, true) => &text[..rest.as_ptr() as usize - text.as_ptr() as usize + rest.len()],
        (true, false) => &text[rest.as_ptr() as usize - text.as_ptr() as usize..],
        (false, _) => rest,
    };
    pieces.extend(Some(rest).filter(|rest| !rest.trim().is_empty()));
    pieces
}

/// Searches with optional start and end, counted in characters.
fn search(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let count = places.len() - 1;
    let beyond = start.is_some_and(|start| start > count as i64);
    let range = range(count, start, end);
    let part = &text[places[range.start]..places[range.end]];
    if let "startswith" | "endswith" = name {
        let holds =
            |what: &str| !beyond && if name == "startswith" { part.starts_with(what) } else { part.ends_with(what) };
        return match (what.as_str(), what.kind()) {
            (Some(what), _) => Ok(Value::from(holds(what))),
            (None, ValueKind::Seq) => Ok(Value::from(what.try_iter()?.any(|one| one.as_str().is_some_and(holds)))),
            _ => Err(failed(format!("{name}: a text or several are expected, not {}", what.kind()))),
        };
    }
    let what = what.as_str().ok_or_else(|| failed(format!("{name}: a text is expected, not {}", what.kind())))?;
    if name == "count" {
        let found = if what.is_empty() { part.chars().count() + 1 } else { part.matches(what).count() };
        return Ok(Value::from(if beyond { 0 } else { found }));
    }
    let at = if name.starts_with('r') { part.rfind(what) } else { part.find(what) };
    let at = at.filter(|_| !beyond).map(|at| range.start + part[..at].chars().count());
    match at {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(failed(format!("{name}: {what:?} is not in the text"))),
    }
}

/// Python's slice of a sequence of that length.
fn range(length: usize, start: Option<i64>, end: Option<i64>) -> std::ops::Range<usize> {
    let place = |index: i64| {
        let index = if index < 0 { index.saturating_add(length as i64) } else { index };
        usize::try_from(index).unwrap_or(0).min(length)
    };
    let start = start.map_or(0, place);
    start..end.map_or(length, place).max(start)
}

fn partition(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (by,): (&str,) = from_args(args)?;
    if by.is_empty() {
        return Err(failed("partition: the separator is empty".to_owned()));
    }
    let (parts, otherwise) = match from_right {
        true => (text.rsplit_once(by), ["", "", text]),
        false => (text.split_once(by), [text, "", ""]),
    };
    let parts = parts.map_or(otherwise, |(left, right)| [left, by, right]);
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// As Python's `str.title`: a letter is upper case after anything but a letter.
fn titled(text: &str) -> String {
    let (mut out, mut within) = (String::with_capacity(text.len()), false);
    for letter in text.chars() {
        if within {
            out.extend(letter.to_lowercase());
        } else {
            out.extend(letter.to_uppercase());
        }
        within = letter.is_alphabetic();
    }
    out
}

fn tabs_expanded(text: &str, width: usize) -> Result<String, Error> {
    if width > WIDTH_MAX {
        return Err(failed(format!("a width of {width}; the limit is {WIDTH_MAX}")));
    }
    let (mut out, mut column) = (String::with_capacity(text.len()), 0);
    for letter in text.chars() {
        match letter {
            '\t' if width == 0 => {}
            '\t' => {
                let fill = width - column % width;
                out.extend(std::iter::repeat_n(' ', fill));
                column += fill;
            }
            _ => {
                out.push(letter);
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}

/// Whether all letters are digits of positional notation, in any script.
fn is_decimal(text: &str) -> bool {
    fancy_regex::Regex::new(r"\A\d+\z").is_ok_and(|digits| digits.is_match(text).unwrap_or(false))
}

/// As Python does: an odd space goes to the left if the width is odd.
pub(super) fn centred(text: &str, width: usize, fill: char) -> Result<String, Error> {
    let around = padding(text, width, fill)?;
    let letters: Vec<char> = around.chars().collect();
    let left = letters.len() / 2 + (letters.len() & width & 1);
    let side = |count: usize| letters[..count].iter().collect::<String>();
    Ok(format!("{}{text}{}", side(left), side(letters.len() - left)))
}

fn padding(text: &str, width: usize, fill: char) -> Result<String, Error> {
    if width > WIDTH_MAX {
        return Err(failed(format!("a width of {width}; the limit is {WIDTH_MAX}")));
    }
    Ok(std::iter::repeat_n(fill, width.saturating_sub(text.chars().count())).collect())
}

pub(super) fn failed(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
