//! Models in several files, `NAME-00001-of-00003.gguf`: which files these are, and whether they belong together.
//!
//! Every part has its number, from zero, in `split.no`, the number of parts in `split.count` and the number of all tensors
//! in `split.tensors.count`. All other metadata are in the first part.

use std::path::{Path, PathBuf};

use super::value::Value;
use super::{GgufError, Part};
use crate::listing;

/// The largest models have dozens.
const PARTS_MAX: usize = 1024;
const DIGITS: usize = 5;
const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Name of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartName {
    /// Path up to the number.
    prefix: PathBuf,
    /// Number, from one.
    number: usize,
    /// Number of parts.
    count: usize,
}

impl PartName {
    /// The name of a part; `None` if it is the name of a whole file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let parse = |digits: &str| {
            let all = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| digits.parse::<usize>().ok()).flatten()
        };
        let (number, count) = (parse(number)?, parse(count)?);
        let valid = (1..=count).contains(&number) && count <= PARTS_MAX;
        valid.then(|| Self { prefix: path.with_file_name(prefix), number, count })
    }

    /// Whether both are parts of one model.
    pub(crate) fn is_with(&self, other: &Self) -> bool {
        (&self.prefix, self.count) == (&other.prefix, other.count)
    }

    fn path(&self, number: usize) -> PathBuf {
        let mut path = self.prefix.clone().into_os_string();
        path.push(format!("-{number:05}-of-{:05}.gguf", self.count));
        path.into()
    }
}

/// All parts of the model that `part` is one of, in their order.
pub(super) fn open_all(part: Part) -> Result<Vec<Part>, GgufError> {
    let count = unsigned(&part, COUNT).unwrap_or(1);
    if count <= 1 {
        return Ok(vec![part]);
    }
    let name = PartName::of(&part.path).filter(|name| name.count as u64 == count);
    let Some(name) = name else {
        let problem = format!(
            "this is one of {count} files of a model (at most {PARTS_MAX} are read), and not called as one: call them \
             NAME-00001-of-{count:05}.gguf and so on"
        );
        return Err(bad(&part, COUNT, problem));
    };
    let given = name.number;
    let mut part = Some(part);
    let mut parts = Vec::new();
    for number in 1..=name.count {
        let next = match part.take_if(|_| number == given) {
            Some(part) => part,
            None => open_beside(&name, number)?,
        };
        check(&next, number, count, parts.first())?;
        parts.push(next);
    }
    check_tensors(&parts)?;
    Ok(parts)
}

fn open_beside(name: &PartName, number: usize) -> Result<Part, GgufError> {
    let path = name.path(number);
    if path.is_file() {
        return Part::open(&path);
    }
    let problem = match listing::obstacle(&path) {
        Some(problem) => problem,
        None => format!("part {number} of {} of the model is not there: fetch it too", name.count),
    };
    Err(GgufError::Part { path, problem })
}

/// Checks that `part` is the one of this number, of the same model as the first.
fn check(part: &Part, number: usize, count: u64, first: Option<&Part>) -> Result<(), GgufError> {
    for (key, expected) in [(NUMBER, number as u64 - 1), (COUNT, count)] {
        let found = unsigned(part, key);
        if found != Some(expected) {
            let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
            let problem = format!("it is {found}, and {expected} by the file's name: fetch the parts again");
            return Err(bad(part, key, problem));
        }
    }
    let Some(first) = first else { return Ok(()) };
    // What a part says of the model beyond its number, the first part says, too.
    let described = part.metadata.iter().filter(|(key, _)| key.starts_with("general.") || *key == TENSORS);
    for (key, value) in described {
        let differs = first.metadata.get(key).is_some_and(|other| other != value && !matches!(value, Value::Array(_)));
        if differs {
            let problem =
                format!("it is another value in {}: these are parts of different models", first.path.display());
            return Err(bad(part, key, problem));
        }
    }
    Ok(())
}

/// Checks the number of tensors, and that none is in two parts.
fn check_tensors(parts: &[Part]) -> Result<(), GgufError> {
    let Some(first) = parts.first() else { return Ok(()) };
    let found: usize = parts.iter().map(|part| part.tensors.len()).sum();
    if let Some(said) = unsigned(first, TENSORS).filter(|said| *said != found as u64) {
        let problem =
            format!("it is {said}, and the parts hold {found} tensors: they are of different models, or damaged");
        return Err(bad(first, TENSORS, problem));
    }
    let mut seen = std::collections::BTreeMap::new();
    for part in parts {
        for tensor in part.tensors.keys() {
            if let Some(other) = seen.insert(tensor, part) {
                let problem =
                    format!("this tensor is in {}, too: these are parts of different models", other.path.display());
                return Err(bad(part, tensor, problem));
            }
        }
    }
    Ok(())
}

/// A number that some writers store as signed.
fn unsigned(part: &Part, key: &str) -> Option<u64> {
    part.metadata.get(key)?.as_unsigned()
}

fn bad(part: &Part, field: &str, problem: String) -> GgufError {
    GgufError::Malformed { path: part.path.clone(), field: field.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        let of = |name: &str| PartName::of(Path::new(name));
        let name = of("a/m-q4-00002-of-00003.gguf").unwrap();
        assert_eq!((name.number, name.count, name.path(3)), (2, 3, PathBuf::from("a/m-q4-00003-of-00003.gguf")));
        assert!(name.is_with(&of("a/m-q4-00001-of-00003.gguf").unwrap()));
        for other in ["a/m-00001-of-00003.gguf", "a/m-q4-00001-of-00004.gguf", "b/m-q4-00001-of-00003.gguf"] {
            assert!(!name.is_with(&of(other).unwrap()), "{other}");
        }
        for whole in [
            "m.gguf",
            "m-00001-of-00003.bin",
            "m-0001-of-0003.gguf",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-00001-of-99999.gguf",
            "m-+0001-of-00003.gguf",
        ] {
            assert_eq!(of(whole), None, "{whole}");
        }
    }
}
