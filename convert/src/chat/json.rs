//! `tojson` as in transformers: Python's `json.dumps(value, ensure_ascii=False, indent=None, separators=None,
//! sort_keys=False)`, without HTML escaping.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

const INDENT_MAX: usize = 32;
/// Deeper values are printed unsorted.
const SORTED_DEPTH_MAX: usize = 64;

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, by position or by name.
pub(super) fn tojson(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let failed = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    let args = args.into_values();
    let (args, options): (&[Value], Kwargs) = from_args(&args)?;
    let (ensure_ascii, indent, separators, sort_keys): (
        Option<Value>,
        Option<usize>,
        Option<Vec<String>>,
        Option<bool>,
    ) = from_args(args)?;
    let indent: Option<usize> = indent.or(options.get("indent")?);
    let ensure_ascii: Option<bool> = ensure_ascii.or(options.get("ensure_ascii")?).map(|flag| flag.is_true());
    let separators: Option<Vec<String>> = separators.or(options.get("separators")?);
    let sort_keys: Option<bool> = sort_keys.or(options.get("sort_keys")?);
    options.assert_all_used()?;
    if let Some(width) = indent.filter(|width| *width > INDENT_MAX) {
        return Err(failed(format!("tojson with an indent of {width}; the limit is {INDENT_MAX}")));
    }
    let [item, key] = match separators.map(<[String; 2]>::try_from) {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
        Some(Ok(both)) => both,
        Some(Err(_)) => return Err(failed("tojson: separators are two texts".to_owned())),
    };
    let style = Python { item, key, indent, ensure_ascii: ensure_ascii.unwrap_or(false), depth: 0, filled: false };
    let mut out = Vec::new();
    let value = if sort_keys.unwrap_or(false) { sorted(value, 0)? } else { value.clone() };
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, style));
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from(String::from_utf8_lossy(&out).into_owned()))
}

fn sorted(value: &Value, depth: usize) -> Result<Value, Error> {
    if depth > SORTED_DEPTH_MAX {
        return Ok(value.clone());
    }
    match value.kind() {
        ValueKind::Map => {
            let items = value.try_iter()?.map(|key| Ok((key.clone(), sorted(&value.get_item(&key)?, depth + 1)?)));
            Ok(Value::from(items.collect::<Result<BTreeMap<Value, Value>, Error>>()?))
        }
        ValueKind::Seq => value.try_iter()?.map(|item| sorted(&item, depth + 1)).collect(),
        _ => Ok(value.clone()),
    }
}

/// A JSON formatter with Python's layout.
struct Python {
    item: String,
    key: String,
    indent: Option<usize>,
    ensure_ascii: bool,
    depth: usize,
    /// Whether the current list or object is not empty.
    filled: bool,
}

impl Python {
    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(width) => write!(out, "\n{}", " ".repeat(width * self.depth)),
            None => Ok(()),
        }
    }

    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn between<W: ?Sized + Write>(&self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.new_line(out)
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.new_line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.between(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.between(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ensure_ascii {
            return out.write_all(fragment.as_bytes());
        }
        for letter in fragment.chars() {
            if letter.is_ascii() {
                out.write_all(&[letter as u8])?;
            } else {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
