//! Labelled texts of a file: JSON lines, or CSV with a header.
//!
//! Each has a text, and the label that it should get. A text without a label is out of scope. `expert` names the expert for the
//! label, where it is not the label itself.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::head::Label;

/// Bound on the file.
const BYTES_MAX: u64 = 256 << 20;
/// Bound on a text, as routers read it.
const TEXT_BYTES_MAX: usize = 4096;

/// Texts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// `sha256:…` of the file.
    pub digest: String,
    /// Texts in the file's order, each once.
    pub texts: Vec<LabelledText>,
    /// All labels by name, each with its expert.
    pub labels: Vec<Label>,
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// What a user wrote.
    pub text: String,
    /// The place of its label; `None` for a text that is out of scope.
    pub label: Option<usize>,
}

/// A file of texts that cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file is too large.
    #[error("{}: {bytes} bytes; the limit is {BYTES_MAX}", path.display())]
    Large {
        /// Path of the file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A line that is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// No text.
    #[error("{}: no texts; expected lines such as {{\"text\": \"what is my balance\", \"label\": \"banking\"}}, or CSV with the header text,label", path.display())]
    Empty {
        /// Path of the file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    text: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    expert: Option<String>,
}

impl Data {
    /// Reads a file: CSV if its name ends so, else JSON lines.
    ///
    /// # Errors
    /// Names the line that cannot be used.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Io { path: path.to_owned(), source };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > BYTES_MAX {
            return Err(DataError::Large { path: path.to_owned(), bytes });
        }
        let bytes = fs::read(path).map_err(failed)?;
        let wrong = |line: u64, problem: String| DataError::Line { path: path.to_owned(), line, problem };
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let rows = if is_csv { csv_rows(&bytes) } else { json_rows(&bytes) };
        let rows = rows.map_err(|(line, problem)| wrong(line, problem))?;
        let mut data = Self::of(rows).map_err(|(line, problem)| wrong(line, problem))?;
        if data.texts.is_empty() {
            return Err(DataError::Empty { path: path.to_owned() });
        }
        data.digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        Ok(data)
    }

    fn of(rows: Vec<(u64, Row)>) -> Result<Self, (u64, String)> {
        let mut experts: BTreeMap<String, (String, u64)> = BTreeMap::new();
        let mut seen: HashMap<String, (Option<String>, u64)> = HashMap::new();
        let mut texts = Vec::new();
        for (line, Row { text, label, expert }) in rows {
            let text = text.trim().to_owned();
            let label = label.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            let expert = expert.map(|expert| expert.trim().to_owned()).filter(|expert| !expert.is_empty());
            if text.is_empty() {
                return Err((line, "`text` is empty".to_owned()));
            }
            if text.len() > TEXT_BYTES_MAX {
                let problem = format!("`text` has {} bytes; routers read the first {TEXT_BYTES_MAX}", text.len());
                return Err((line, problem));
            }
            match (&label, expert) {
                (None, Some(expert)) => {
                    let problem =
                        format!("the expert `{expert}`, but no label; a text without a label is out of scope");
                    return Err((line, problem));
                }
                (Some(label), expert) => {
                    let expert = expert.unwrap_or_else(|| label.clone());
                    let (known, first) = experts.entry(label.clone()).or_insert((expert.clone(), line));
                    if *known != expert {
                        let problem =
                            format!("the label `{label}` has the expert `{expert}`, and in line {first} `{known}`");
                        return Err((line, problem));
                    }
                }
                (None, None) => {}
            }
            match seen.get(&text) {
                Some((known, _)) if *known == label => continue,
                Some((known, first)) => {
                    let [known, label] =
                        [known, &label].map(|label| label.clone().unwrap_or_else(|| "out of scope".to_owned()));
                    return Err((line, format!("this text is `{label}`, and in line {first} `{known}`")));
                }
                None => {
                    seen.insert(text.clone(), (label.clone(), line));
                    texts.push((text, label));
                }
            }
        }
        let names: HashMap<&String, usize> = experts.keys().enumerate().map(|(place, name)| (name, place)).collect();
        let place = |label: Option<String>| label.and_then(|label| names.get(&label).copied());
        let texts = texts.into_iter().map(|(text, label)| LabelledText { text, label: place(label) }).collect();
        let labels = experts.iter().map(|(name, (expert, _))| Label { name: name.clone(), expert: expert.clone() });
        Ok(Self { digest: String::new(), texts, labels: labels.collect() })
    }
}

type Rows = Result<Vec<(u64, Row)>, (u64, String)>;

fn json_rows(bytes: &[u8]) -> Rows {
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = serde_json::from_slice(text).map_err(|error| {
            let problem = error.to_string();
            let problem = problem.split(" at line").next().unwrap_or_default().to_owned();
            (line, format!("{problem}; expected {{\"text\": …, \"label\": …}}, or a file whose name ends with .csv"))
        })?;
        rows.push((line, row));
    }
    Ok(rows)
}

fn csv_rows(bytes: &[u8]) -> Rows {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let line_of = |error: &csv::Error| error.position().map_or(1, csv::Position::line);
    let headers = reader.headers().map_err(|error| (line_of(&error), error.to_string()))?.clone();
    let known = ["text", "label", "expert"];
    if let Some(unknown) = headers.iter().find(|header| !known.contains(header)) {
        return Err((1, format!("the column `{unknown}` is unknown; expected text, label and perhaps expert")));
    }
    for needed in &known[..2] {
        if !headers.iter().any(|header| header == *needed) {
            return Err((1, format!("the column `{needed}` is missing from the header")));
        }
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| (line_of(&error), error.to_string()))?;
        let line = record.position().map_or(1, csv::Position::line);
        let row = record.deserialize(Some(&headers)).map_err(|error| (line, error.to_string()))?;
        rows.push((line, row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Data, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        Data::read(&path).map_err(|error| error.to_string().rsplit('/').next().unwrap_or_default().to_owned())
    }

    #[test]
    fn both_forms_say_the_same() {
        let lines = r#"{"text": "what is my balance", "label": "balance", "expert": "banking"}

{"text": "a flight, please", "label": "travel"}
{"text": "what is my balance", "label": "balance", "expert": "banking"}
{"text": "who wrote hamlet", "label": null}
"#;
        let csv = "text,label,expert\nwhat is my balance,balance,banking\n\"a flight, please\",travel,\n\
                   who wrote hamlet,,\n";
        let of_lines = read("data.jsonl", lines).expect("data");
        let of_csv = read("data.CSV", csv).expect("data");
        assert_eq!((&of_lines.texts, &of_lines.labels), (&of_csv.texts, &of_csv.labels));
        assert!(of_lines.digest.starts_with("sha256:") && of_lines.digest != of_csv.digest);
        let labels: Vec<_> = of_csv.labels.iter().map(|label| (label.name.as_str(), label.expert.as_str())).collect();
        assert_eq!(labels, [("balance", "banking"), ("travel", "travel")]);
        let texts: Vec<_> = of_csv.texts.iter().map(|text| (text.text.as_str(), text.label)).collect();
        assert_eq!(texts, [("what is my balance", Some(0)), ("a flight, please", Some(1)), ("who wrote hamlet", None)]);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        let long = format!("{{\"text\": \"{}\", \"label\": \"a\"}}", "x".repeat(5000));
        for (name, text, problem) in [
            (
                "a.jsonl",
                "{\"text\": \"a\", \"label\": \"b\"}\n{\"text\": \"a\", \"label\": \"c\"}",
                "a.jsonl:2: this text is `c`, and in line 1 `b`",
            ),
            ("a.jsonl", "{\"text\": \" \", \"label\": \"b\"}", "a.jsonl:1: `text` is empty"),
            (
                "a.jsonl",
                "text,label",
                "a.jsonl:1: expected ident; expected {\"text\": …, \"label\": …}, or a file whose name ends with .csv",
            ),
            ("a.jsonl", "{\"text\": \"a\", \"lable\": \"b\"}", "unknown field `lable`"),
            ("a.jsonl", "{\"text\": \"a\", \"expert\": \"b\"}", "the expert `b`, but no label"),
            ("a.jsonl", "\n\n", "no texts; expected lines"),
            ("a.jsonl", &long, "`text` has 5000 bytes"),
            (
                "a.csv",
                "text,label,expert\na,x,e\nb,x,f\n",
                "a.csv:3: the label `x` has the expert `f`, and in line 2 `e`",
            ),
            ("a.csv", "text,intent\na,b\n", "a.csv:1: the column `intent` is unknown"),
            ("a.csv", "text\na\n", "a.csv:1: the column `label` is missing"),
            ("a.csv", "text,label\na,b,c\n", "a.csv:2: "),
            ("a.csv", "", "a.csv:1: the column `text` is missing"),
        ] {
            let told = read(name, text).expect_err(problem);
            assert!(told.contains(problem), "{told}");
        }
    }
}
