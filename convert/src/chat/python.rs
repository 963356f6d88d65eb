//! Features of Python and Jinja2 that templates use and minijinja lacks.

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Bound on padding, more than any template uses.
const WIDTH_MAX: usize = 1 << 16;

/// Adds Jinja2's filters and functions, and Python's methods.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("center", |text: String, width: Option<usize>| centred(&text, width.unwrap_or(80), ' '));
    environment.add_filter("truncate", truncate);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment.add_filter("striptags", minijinja_contrib::filters::striptags);
    environment.add_filter("random", minijinja_contrib::filters::random);
    environment.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
}

fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match (value.kind(), value.as_str()) {
        (_, Some(text)) => text_method(text, name, args)?,
        (ValueKind::Seq, None) if name == "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *what);
            Some(at.map(Value::from).ok_or_else(|| failed(format!("{what} is not in the list")))?)
        }
        (ValueKind::Map, None) if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(value) => Ok(value),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Methods of Python's `str` that pycompat lacks; `None` if unknown here too.
fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let padded = |args: &[Value]| -> Result<(usize, char), Error> {
        let (width, fill): (usize, Option<&str>) = from_args(args)?;
        Ok((width, fill.and_then(|fill| fill.chars().next()).unwrap_or(' ')))
    };
    let three = |parts: Option<(&str, &str)>, by: &str, otherwise: [&str; 3]| {
        let parts = parts.map_or(otherwise, |(left, right)| [left, by, right]);
        // `by` is not kept: values copy their text.
        parts.into_iter().map(Value::from).collect::<Value>()
    };
    Ok(Some(match name {
        "rsplit" => rsplit(text, args)?,
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if name == "index" { text.find(what) } else { text.rfind(what) };
            let at = at.ok_or_else(|| failed(format!("{name}: {what:?} is not in the text")))?;
            Value::from(text[..at].chars().count())
        }
        "partition" => {
            let (by,): (&str,) = from_args(args)?;
            three(text.split_once(by), by, [text, "", ""])
        }
        "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            three(text.rsplit_once(by), by, ["", "", text])
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "center" => {
            let (width, fill) = padded(args)?;
            Value::from(centred(text, width, fill)?)
        }
        "ljust" => {
            let (width, fill) = padded(args)?;
            Value::from(format!("{text}{}", padding(text, width, fill)?))
        }
        "rjust" => {
            let (width, fill) = padded(args)?;
            Value::from(format!("{}{text}", padding(text, width, fill)?))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.trim_start_matches(['+', '-']);
            let sign = &text[..text.len() - digits.len()];
            Value::from(format!("{sign}{}{digits}", padding(text, width, '0')?))
        }
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

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (args, kwargs): (&[Value], Kwargs) = from_args(args)?;
    let (by, most): (Option<Value>, Option<i64>) = from_args(args)?;
    let most = most.or(kwargs.get("maxsplit")?).unwrap_or(-1);
    let parts = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut pieces: Vec<&str> = match by.as_ref().and_then(Value::as_str) {
        Some("") => return Err(failed("rsplit: the separator is empty".to_owned())),
        Some(by) => text.rsplitn(parts, by).collect(),
        None => {
            let (mut rest, mut pieces) = (text.trim_end(), Vec::new());
            while !rest.is_empty() && pieces.len() + 1 < parts {
                let Some(at) = rest.rfind(char::is_whitespace) else { break };
                pieces.push(rest[at..].trim_start());
                rest = rest[..at].trim_end();
            }
            pieces.extend(Some(rest).filter(|rest| !rest.is_empty()));
            pieces
        }
    };
    pieces.reverse();
    Ok(pieces.into_iter().map(Value::from).collect())
}

/// Number of words, as matches of Python's `\w+`.
fn wordcount(text: &str) -> usize {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty()).count()
}

fn centred(text: &str, width: usize, fill: char) -> Result<String, Error> {
    let all = padding(text, width, fill)?;
    let count = all.chars().count();
    // In an odd width, Python puts the odd space to the left.
    let left = count / 2 + (count & width & 1);
    let left: String = all.chars().take(left).collect();
    Ok(format!("{left}{text}{}", &all[left.len()..]))
}

fn padding(text: &str, width: usize, fill: char) -> Result<String, Error> {
    if width > WIDTH_MAX {
        return Err(failed(format!("a width of {width}; the limit is {WIDTH_MAX}")));
    }
    Ok(std::iter::repeat_n(fill, width.saturating_sub(text.chars().count())).collect())
}

/// Jinja2's `truncate(length=255, killwords=False, end='...', leeway=5)`, the last by name only.
fn truncate(
    text: String,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<String>,
    named: Kwargs,
) -> Result<String, Error> {
    let length = length.or(named.get("length")?).unwrap_or(255);
    let killwords = killwords.or(named.get("killwords")?).unwrap_or(false);
    let end = end.or(named.get("end")?).unwrap_or_else(|| "...".to_owned());
    let leeway = named.get::<Option<usize>>("leeway")?.unwrap_or(5);
    named.assert_all_used()?;
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(failed(format!("truncate: a length of {length} has no room for {end:?}")));
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut: String = text.chars().take(kept).collect();
    let whole = if killwords { cut.as_str() } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words) };
    Ok(format!("{whole}{end}"))
}

fn failed(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
