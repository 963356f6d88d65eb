//! Python's `str.format` where minijinja's lacks something: `{!r}`, `{!a}`, `{!s}` and `{:.1%}`.

use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, Value};

use super::methods::failed;
use super::number;
use super::printf::{self, Values};

/// Bound on the fields of a format.
const FIELDS_MAX: usize = 1024;

/// Whether a format has such a field.
pub(super) fn is_needed(format: &str) -> bool {
    ["!r", "!a", "!s", "%}"].iter().any(|mark| format.contains(mark))
}

/// The format with these fields as fields of texts, and the arguments with these texts.
pub(super) fn rewritten(format: &str, args: &[Value]) -> Result<(String, Vec<Value>), Error> {
    let (args, named): (&[Value], Kwargs) = from_args(args)?;
    let mut pairs =
        named.args().map(|name| Ok((name.to_owned(), named.get(name)?))).collect::<Result<Vec<_>, Error>>()?;
    let (mut out, mut rest, mut next) = (String::new(), format, 0..FIELDS_MAX);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = ["{{", "}}"].iter().find_map(|pair| rest.strip_prefix(pair)) {
            out.push_str(&rest[..2]);
            rest = after;
            continue;
        }
        let end = rest.find('}').filter(|_| rest.starts_with('{'));
        let end = end.ok_or_else(|| failed("format: a brace has no other one".to_owned()))?;
        let field = Field::parse(&rest[1..end], &mut next)?;
        let text = field.text(args, &pairs)?;
        match text {
            None => out.push_str(&format!("{{{}{}}}", field.name, field.tail)),
            Some((text, spec)) => {
                let name = format!("__{}__", pairs.len());
                out.push_str(&format!("{{{name}:{spec}}}"));
                pairs.push((name, text.into()));
            }
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    let named = Value::from(pairs.into_iter().collect::<Kwargs>());
    Ok((out, args.iter().cloned().chain([named]).collect()))
}

/// `name!r:spec`, the name with what follows it.
struct Field<'f> {
    name: String,
    conversion: Option<char>,
    spec: &'f str,
    /// All after the name.
    tail: &'f str,
}

impl<'f> Field<'f> {
    fn parse(field: &'f str, next: &mut std::ops::Range<usize>) -> Result<Self, Error> {
        let end = field.find(['!', ':']).unwrap_or(field.len());
        let (name, tail) = field.split_at(end);
        let conversion = tail.strip_prefix('!').and_then(|tail| tail.chars().next());
        let spec = tail.split_once(':').map_or("", |(_, spec)| spec);
        let first = name.find(['.', '[']).unwrap_or(name.len());
        let name = if first > 0 {
            name.to_owned()
        } else {
            // Fields without a name count.
            let index = next.next().ok_or_else(|| failed(format!("format: more than {FIELDS_MAX} fields")))?;
            format!("{index}{name}")
        };
        Ok(Self { name, conversion, spec, tail })
    }

    /// Text of a field that minijinja lacks, and how to align it.
    fn text(&self, args: &[Value], pairs: &[(String, Value)]) -> Result<Option<(String, String)>, Error> {
        if let Some(conversion) = self.conversion {
            let value = self.value(args, pairs)?;
            let text = printf::format(&format!("%{conversion}"), &Values::Listed(std::slice::from_ref(&value)))?;
            return Ok(Some((text.to_string(), self.spec.to_owned())));
        }
        let Some(spec) = self.spec.strip_suffix('%') else { return Ok(None) };
        let value = self.value(args, pairs)?;
        let number =
            number::float(&value).ok_or_else(|| failed(format!("format: % needs a number, not {}", value.kind())))?;
        let (align, precision) = spec.split_once('.').unwrap_or((spec, "6"));
        let hundreds = Value::from(number * 100.0);
        let text = printf::format(&format!("%.{precision}f%%"), &Values::Listed(std::slice::from_ref(&hundreds)))?;
        // Numbers are aligned to the right.
        let align = if align.starts_with(|letter: char| letter.is_ascii_digit()) {
            format!(">{align}")
        } else {
            align.to_owned()
        };
        Ok(Some((text.to_string(), align)))
    }

    /// The argument that a field names, with its attributes and items.
    fn value(&self, args: &[Value], pairs: &[(String, Value)]) -> Result<Value, Error> {
        let first = self.name.find(['.', '[']).unwrap_or(self.name.len());
        let (base, mut rest) = self.name.split_at(first);
        let mut value = match base.parse::<usize>() {
            Ok(index) => args.get(index).cloned(),
            Err(_) => pairs.iter().find(|(name, _)| name == base).map(|(_, value)| value.clone()),
        }
        .ok_or_else(|| failed(format!("format: there is no argument {base}")))?;
        while !rest.is_empty() {
            if let Some((key, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                value = match key.parse::<usize>() {
                    Ok(index) => value.get_item_by_index(index)?,
                    Err(_) => value.get_item(&Value::from(key))?,
                };
                rest = after;
            } else {
                let after =
                    rest.strip_prefix('.').ok_or_else(|| failed(format!("format: {rest:?} is no attribute")))?;
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = value.get_attr(&after[..end])?;
                rest = &after[end..];
            }
        }
        Ok(value)
    }
}
