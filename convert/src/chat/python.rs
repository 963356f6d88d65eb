//! Filters, functions and tests of Jinja2 that minijinja lacks or does otherwise.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::methods::{centred, failed, method};
use super::{number, percent, printf};

/// Bound on the pieces of a wrapped text, and on indentation.
const WIDTH_MAX: usize = 1 << 16;

/// Adds Jinja2's filters, functions and tests, and Python's methods.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.set_formatter(number::write);
    environment.add_filter("string", |value: &Value| match value.as_str() {
        Some(_) => value.clone(),
        None => Value::from(number::shown(value)),
    });
    environment.add_filter("wordcount", |value: &Value| wordcount(&number::shown(value)));
    environment.add_filter("center", |value: &Value, width: Option<usize>, named: Kwargs| {
        let width = width.or(named.get("width")?).unwrap_or(80);
        named.assert_all_used()?;
        centred(&number::shown(value), width, ' ')
    });
    environment.add_filter("format", |format: &str, args: Rest<ValueOrKwargs>| {
        percent::formatted(format, &args.into_values())
    });
    environment.add_filter("truncate", truncate);
    environment.add_filter("indent", indent);
    environment.add_filter("wordwrap", wordwrap);
    for name in ["escape", "e", "forceescape"] {
        let force = name == "forceescape";
        environment.add_filter(name, move |value: &Value| escape(value, force));
    }
    environment.add_filter("xmlattr", xmlattr);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment.add_filter("striptags", minijinja_contrib::filters::striptags);
    environment.add_filter("random", |state: &mut State<'_, '_>, value: &Value| {
        let items = match value.as_str() {
            Some(_) => value.clone(),
            None => Value::from(value.try_iter()?.collect::<Vec<_>>()),
        };
        minijinja_contrib::filters::random(state, &items)
    });
    environment.add_function("cycler", |items: Rest<Value>| match items.0.is_empty() {
        true => Err(failed("cycler: at least one value is needed".to_owned())),
        false => Ok(Value::from_object(Cycler { items: items.0, at: AtomicUsize::new(0) })),
    });
    environment.add_function("joiner", |separator: Option<Value>, named: Kwargs| {
        let separator = separator.or(named.get("sep")?).unwrap_or_else(|| Value::from(", "));
        named.assert_all_used()?;
        Ok::<_, Error>(Value::from_object(Joiner { separator, used: AtomicBool::new(false) }))
    });
    environment.add_filter("pprint", |value: &Value| printf::repr(value));
    // In Jinja2, an undefined value can be called, too, and raises its error then.
    environment.add_test("callable", |value: &Value| matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined));
}

/// Items in turn, from the start again after the last one.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items[self.at.load(Ordering::Relaxed) % self.items.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let () = from_args(args)?;
        match method {
            "next" => {
                let item = self.current();
                self.at.fetch_add(1, Ordering::Relaxed);
                Ok(item)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// A separator that is empty at first.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(if self.used.swap(true, Ordering::Relaxed) { self.separator.clone() } else { Value::from("") })
    }
}

/// Number of words, as matches of Python's `\w+`.
fn wordcount(text: &str) -> usize {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty()).count()
}

/// Jinja2's `truncate(length=255, killwords=False, end='...', leeway=5)`.
fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (args, named): (&[Value], Kwargs) = from_args(&args)?;
    let (length, killwords, end, leeway): (Option<usize>, Option<bool>, Option<String>, Option<usize>) =
        from_args(args)?;
    let length = length.or(named.get("length")?).unwrap_or(255);
    let killwords = killwords.or(named.get("killwords")?).unwrap_or(false);
    let end = end.or(named.get("end")?).unwrap_or_else(|| "...".to_owned());
    let leeway = leeway.or(named.get("leeway")?).unwrap_or(5);
    named.assert_all_used()?;
    let text = number::shown(value);
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

/// Jinja2's `indent(width=4, first=False, blank=False)`; the width may be a text.
fn indent(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (args, named): (&[Value], Kwargs) = from_args(&args)?;
    let (width, first, blank): (Option<Value>, Option<bool>, Option<bool>) = from_args(args)?;
    let width: Option<Value> = width.or(named.get("width")?);
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let by = match width {
        Some(text) if text.as_str().is_some() => text.to_string(),
        Some(width) => " ".repeat(usize::try_from(width)?.min(WIDTH_MAX)),
        None => " ".repeat(4),
    };
    let text = number::shown(value);
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if if at == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Jinja2's `wordwrap(width=79, break_long_words=True, wrapstring='\n')`, for each line of its own.
fn wordwrap(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (args, named): (&[Value], Kwargs) = from_args(&args)?;
    let (width, long, by): (Option<usize>, Option<bool>, Option<String>) = from_args(args)?;
    let width = width.or(named.get("width")?).unwrap_or(79).clamp(1, WIDTH_MAX);
    let break_long = long.or(named.get("break_long_words")?).unwrap_or(true);
    let by = by.or(named.get("wrapstring")?).unwrap_or_else(|| "\n".to_owned());
    named.assert_all_used()?;
    let text = number::shown(value);
    let lines = text.lines().flat_map(|line| match wrapped(line, width, break_long) {
        lines if lines.is_empty() => vec![String::new()],
        lines => lines,
    });
    Ok(lines.collect::<Vec<_>>().join(&by))
}

fn wrapped(line: &str, width: usize, break_long: bool) -> Vec<String> {
    let (mut lines, mut current, mut count) = (Vec::new(), String::new(), 0);
    for chunk in line.split_inclusive(char::is_whitespace).flat_map(|chunk| {
        let word = chunk.trim_end();
        [word, &chunk[word.len()..]].into_iter().filter(|part| !part.is_empty())
    }) {
        let mut rest: Vec<char> = chunk.chars().collect();
        let is_space = rest.iter().all(|letter| letter.is_whitespace());
        if count + rest.len() > width && count > 0 && (!break_long || rest.len() <= width) {
            lines.push(current.trim_end().to_owned());
            (current, count) = (String::new(), 0);
        }
        while break_long && count + rest.len() > width && !is_space {
            current.extend(rest.drain(..width - count));
            lines.push(std::mem::take(&mut current));
            count = 0;
        }
        if is_space && count == 0 && !lines.is_empty() {
            continue;
        }
        count += rest.len();
        current.extend(rest);
    }
    if !current.trim_end().is_empty() {
        lines.push(current.trim_end().to_owned());
    }
    lines
}

/// `escape` leaves what is marked as safe.
fn escape(value: &Value, force: bool) -> Value {
    if value.is_safe() && !force {
        return value.clone();
    }
    Value::from_safe_string(escaped(&number::shown(value)))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// Jinja2's `xmlattr(autospace=True)`.
fn xmlattr(map: &Value, autospace: Option<bool>) -> Result<String, Error> {
    let mut attributes = Vec::new();
    for key in map.try_iter()? {
        let value = map.get_item(&key)?;
        let name = key.to_string();
        if name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || "/>=".contains(letter)) {
            return Err(failed(format!("xmlattr: {name:?} is no name of an attribute")));
        }
        if !value.is_none() && !value.is_undefined() {
            attributes.push(format!("{}=\"{}\"", escaped(&name), escaped(&number::shown(&value))));
        }
    }
    let space = if autospace.unwrap_or(true) && !attributes.is_empty() { " " } else { "" };
    Ok(format!("{space}{}", attributes.join(" ")))
}

/// A text for a path of an address, or pairs for its query.
fn urlencode(value: &Value) -> Result<String, Error> {
    if value.as_str().is_some() || !matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
        return Ok(quoted(&number::shown(value), true));
    }
    let mut pairs = Vec::new();
    for item in value.try_iter()? {
        let (key, value) = match value.kind() {
            ValueKind::Map => (item.clone(), value.get_item(&item)?),
            _ => (item.get_item_by_index(0)?, item.get_item_by_index(1)?),
        };
        pairs.push(format!("{}={}", quoted(&number::shown(&key), false), quoted(&number::shown(&value), false)));
    }
    Ok(pairs.join("&"))
}

fn quoted(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' if !is_path => out.push('+'),
            b'/' if is_path => out.push('/'),
            b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
