//! Python's `%` formatting of strings: `'%s: %05.1f' % (name, value)`.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::number;

/// Bound on widths and precisions, more than any template uses.
const WIDTH_MAX: usize = 1 << 16;
/// Digits after the point of which a float has no more.
const PRECISION_MAX: usize = 1 << 10;

/// Values for the directives of a format.
pub(super) enum Values<'v> {
    /// In order; all have to be used.
    Listed(&'v [Value]),
    /// By name, `%(name)s`.
    Named(&'v Value),
}

/// Formats `values` as Python's `format % values` does.
pub(super) fn format(format: &str, values: &Values<'_>) -> Result<Value, Error> {
    let mut rest = Rest { values, at: 0 };
    let (mut out, mut letters) = (String::new(), format.chars().peekable());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let directive = Directive::parse(&mut letters, &mut rest)?;
        if directive.kind == '%' {
            out.push('%');
            continue;
        }
        let value = rest.next(directive.name.as_deref())?;
        directive.write(&value, &mut out)?;
    }
    match values {
        Values::Listed(all) if rest.at < all.len() => Err(failed("not all values are used by the format".to_owned())),
        _ => Ok(Value::from(out)),
    }
}

/// A value as Python's `repr` prints it.
pub(super) fn repr(value: &Value) -> String {
    match value.kind() {
        // Lists print the representation of their items.
        ValueKind::String => {
            let list = Value::from(vec![value.clone()]).to_string();
            list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or(&list).to_owned()
        }
        _ => number::shown(value),
    }
}

/// The values that are left.
struct Rest<'v> {
    values: &'v Values<'v>,
    at: usize,
}

impl Rest<'_> {
    fn next(&mut self, name: Option<&str>) -> Result<Value, Error> {
        match (self.values, name) {
            (Values::Named(map), Some(name)) => {
                let value = map.get_item(&Value::from(name))?;
                if value.is_undefined() {
                    Err(failed(format!("the format has no value for {name:?}")))
                } else {
                    Ok(value)
                }
            }
            (Values::Named(map), None) => {
                self.at += 1;
                if self.at == 1 {
                    Ok((*map).clone())
                } else {
                    Err(failed("not enough values for the format".to_owned()))
                }
            }
            (Values::Listed(_), Some(name)) => Err(failed(format!("the format needs a mapping for {name:?}"))),
            (Values::Listed(all), None) => {
                self.at += 1;
                all.get(self.at - 1).cloned().ok_or_else(|| failed("not enough values for the format".to_owned()))
            }
        }
    }
}

#[derive(Default)]
struct Directive {
    name: Option<String>,
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    prefix: bool,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

type Letters<'f> = std::iter::Peekable<std::str::Chars<'f>>;

impl Directive {
    /// Reads the directive after a `%`.
    fn parse(letters: &mut Letters<'_>, rest: &mut Rest<'_>) -> Result<Self, Error> {
        let mut directive = Self::default();
        if letters.next_if_eq(&'(').is_some() {
            let name: String = std::iter::from_fn(|| letters.next_if(|letter| *letter != ')')).collect();
            letters.next();
            directive.name = Some(name);
        }
        while let Some(flag) = letters.next_if(|letter| "-+ #0".contains(*letter)) {
            match flag {
                '-' => directive.left = true,
                '+' => directive.plus = true,
                ' ' => directive.space = true,
                '#' => directive.prefix = true,
                _ => directive.zero = true,
            }
        }
        let width = size(letters, rest)?.unwrap_or(0);
        directive.left |= width < 0;
        directive.width = bounded(width.unsigned_abs(), WIDTH_MAX)?;
        if letters.next_if_eq(&'.').is_some() {
            let precision = size(letters, rest)?.unwrap_or(0).max(0);
            directive.precision = Some(bounded(precision.unsigned_abs(), PRECISION_MAX)?);
        }
        // C's lengths mean nothing in Python.
        while letters.next_if(|letter| "hlL".contains(*letter)).is_some() {}
        directive.kind = letters.next().ok_or_else(|| failed("the format ends within a directive".to_owned()))?;
        Ok(directive)
    }

    fn write(&self, value: &Value, out: &mut String) -> Result<(), Error> {
        let text = |text: String| match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text,
        };
        match self.kind {
            's' => self.pad("", &text(number::shown(value)), out),
            'r' => self.pad("", &text(repr(value)), out),
            'a' => self.pad("", &text(ascii(&repr(value))), out),
            'c' => self.pad("", &letter(value)?, out),
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => self.whole(value, out)?,
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let number = number::float(value).ok_or_else(|| self.wrong(value, "a number"))?;
                let upper = self.kind.is_ascii_uppercase();
                let digits = number::formatted(
                    number.abs(),
                    self.kind.to_ascii_lowercase(),
                    self.precision.unwrap_or(6),
                    self.prefix,
                );
                let digits = if upper { digits.to_uppercase() } else { digits };
                self.number(number.is_sign_negative() && !number.is_nan(), "", &digits, number.is_finite(), out);
            }
            other => return Err(failed(format!("unsupported format character {other:?}"))),
        }
        Ok(())
    }

    fn whole(&self, value: &Value, out: &mut String) -> Result<(), Error> {
        let decimal = matches!(self.kind, 'd' | 'i' | 'u');
        let whole = number::whole(value).or_else(|| {
            // Python cuts floats, in decimal only.
            let float = number::float(value).filter(|x| decimal && x.is_finite() && x.abs() < 1e38)?;
            Some(float.trunc() as i128)
        });
        let whole = whole.ok_or_else(|| self.wrong(value, "a whole number"))?;
        let size = whole.unsigned_abs();
        let (prefix, digits) = match self.kind {
            'x' => ("0x", format!("{size:x}")),
            'X' => ("0X", format!("{size:X}")),
            'o' => ("0o", format!("{size:o}")),
            _ => ("", size.to_string()),
        };
        let digits = format!("{digits:0>width$}", width = self.precision.unwrap_or(0));
        self.number(whole < 0, if self.prefix { prefix } else { "" }, &digits, true, out);
        Ok(())
    }

    fn number(&self, negative: bool, prefix: &str, digits: &str, zeros: bool, out: &mut String) {
        let sign = match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let before = format!("{sign}{prefix}");
        if self.zero && !self.left && zeros {
            let width = self.width.saturating_sub(before.len());
            // Writing to a string cannot fail.
            let _ = write!(out, "{before}{digits:0>width$}");
        } else {
            self.pad(&before, digits, out);
        }
    }

    fn pad(&self, before: &str, text: &str, out: &mut String) {
        let fill = self.width.saturating_sub(before.chars().count() + text.chars().count());
        let spaces = " ".repeat(fill);
        let (first, last) = if self.left { ("", spaces.as_str()) } else { (spaces.as_str(), "") };
        let _ = write!(out, "{first}{before}{text}{last}");
    }

    fn wrong(&self, value: &Value, expected: &str) -> Error {
        failed(format!("%{} needs {expected}, not {}", self.kind, value.kind()))
    }
}

/// A width or precision: digits, or `*` for the next value.
fn size(letters: &mut Letters<'_>, rest: &mut Rest<'_>) -> Result<Option<i64>, Error> {
    if letters.next_if_eq(&'*').is_some() {
        let value = rest.next(None)?;
        return i64::try_from(value).map(Some).map_err(|_| failed("* needs a whole number".to_owned()));
    }
    let digits: String = std::iter::from_fn(|| letters.next_if(char::is_ascii_digit)).collect();
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().map(Some).map_err(|_| failed(format!("a width of {digits} is too large")))
}

fn bounded(size: u64, most: usize) -> Result<usize, Error> {
    let size = usize::try_from(size).ok().filter(|size| *size <= most);
    size.ok_or_else(|| failed(format!("a width or precision beyond the limit of {most}")))
}

fn letter(value: &Value) -> Result<String, Error> {
    let text = value.as_str().filter(|text| text.chars().count() == 1).map(str::to_owned);
    let code = || number::whole(value).and_then(|code| char::from_u32(u32::try_from(code).ok()?)).map(String::from);
    text.or_else(code).ok_or_else(|| failed("%c needs a letter or its number".to_owned()))
}

/// `text` with escapes for what is not ASCII.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        let _ = match u32::from(letter) {
            0..0x80 => write!(out, "{letter}"),
            code @ 0x80..0x100 => write!(out, "\\x{code:02x}"),
            code @ 0x100..0x1_0000 => write!(out, "\\u{code:04x}"),
            code => write!(out, "\\U{code:08x}"),
        };
    }
    out
}

fn failed(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
