//! Standard output: lines, JSON, tables.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::{
    exit::Failure,
    style::{self, styled},
};

/// Writes text and flushes, so that it is seen as it comes.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a line.
pub fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Shows what a model thinks on standard error, as it comes; `ended` once its answer begins.
pub fn thought(text: &str, ended: bool) {
    if !text.is_empty() {
        anstream::eprint!("{}", crate::style::styled(crate::style::DIM, text));
    }
    if ended {
        anstream::eprintln!();
    }
}

/// Writes a line to standard error, for people: what a command does meanwhile is none of its output.
pub fn note(line: &str) {
    anstream::eprintln!("{line}");
}

/// Writes bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes one line of JSON, for the process that started this one.
pub fn say(line: &impl Serialize) -> Result<(), Failure> {
    self::line(&serde_json::to_string(line).map_err(Failure::failed)?)
}

/// Writes a value as JSON for people and programs.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value).map_err(Failure::failed)?)
}

/// Columns under a heading, as wide as they need to be.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    line(&styled(style::HEAD, &cells(&heading, &widths)))?;
    rows.iter().try_for_each(|row| line(&cells(row, &widths)))
}

fn cells(row: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    padded.join("   ").trim_end().to_owned()
}

/// A digest short enough for a table; its first twelve digits still tell any two apart.
pub fn short_digest(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up() {
        assert_eq!(cells(&["a".to_owned(), "b".to_owned()], &[3, 2]), "a     b");
    }

    #[test]
    fn digests() {
        assert_eq!(short_digest("sha256:0123456789abcdef"), "0123456789ab");
    }
}
