//! The texts of a folder: Markdown and plain text, in the order of their paths.
//!
//! Symbolic links are not followed, so nothing outside of the folder is read. What cannot be read is told by name, and left as it is in
//! the store: a file that is broken for a moment must not lose its passages.

use std::{fs, io, path::Path};

use thiserror::Error;

/// Files of a folder.
const FILES_MAX: usize = 20_000;
/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Folders within folders.
const DEPTH_MAX: usize = 32;
/// Ends of the names that are read.
const ENDS: [&str; 3] = ["md", "markdown", "txt"];

/// The folder cannot be read.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The system refuses.
    #[error("{0}: {1}")]
    Read(String, io::Error),
    /// It has too many files.
    #[error("{0}: more than {FILES_MAX} files; index a folder of it")]
    Many(String),
    /// It is no folder.
    #[error("{0}: not a folder; name the one with the texts")]
    NoFolder(String),
}

/// What a folder has.
#[derive(Debug, Default)]
pub struct Texts {
    /// Path within the folder, with `/`, and text.
    pub texts: Vec<(String, String)>,
    /// Path and reason of what was not read.
    pub skipped: Vec<(String, String)>,
}

/// Reads a folder.
///
/// # Errors
/// It cannot be read, or has too many files.
pub fn texts(folder: &Path) -> Result<Texts, FolderError> {
    if !folder.is_dir() {
        return Err(FolderError::NoFolder(folder.display().to_string()));
    }
    let mut found = Texts::default();
    walk(folder, "", 0, &mut found)?;
    found.texts.sort();
    found.skipped.sort();
    Ok(found)
}

fn walk(folder: &Path, within: &str, depth: usize, found: &mut Texts) -> Result<(), FolderError> {
    let wrong = |error| FolderError::Read(folder.display().to_string(), error);
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let Ok(name) = entry.file_name().into_string() else {
            found
                .skipped
                .push((within.to_owned() + &entry.file_name().to_string_lossy(), "its name is not UTF-8".to_owned()));
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let (path, kind) = (format!("{within}{name}"), entry.file_type().map_err(wrong)?);
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&entry.path(), &format!("{path}/"), depth + 1, found)?;
        } else if kind.is_dir() {
            found.skipped.push((path, format!("more than {DEPTH_MAX} folders deep")));
        } else if is_text(&name) {
            let read = if kind.is_file() { text(&entry.path()) } else { Err("not a plain file".to_owned()) };
            match read {
                Ok(text) => found.texts.push((path, text)),
                Err(why) => found.skipped.push((path, why)),
            }
            if found.texts.len() + found.skipped.len() > FILES_MAX {
                return Err(FolderError::Many(folder.display().to_string()));
            }
        }
    }
    Ok(())
}

fn is_text(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
    ENDS.iter().any(|known| end.eq_ignore_ascii_case(known))
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("{bytes} bytes; at most {FILE_BYTES_MAX} are read"));
    }
    let text = String::from_utf8(fs::read(path).map_err(|error| error.to_string())?);
    let text = text.map_err(|_| "not UTF-8; save it as UTF-8".to_owned())?;
    // PostgreSQL's texts cannot hold it, and no text needs it.
    if text.contains('\0') { Err("it has a NUL; is it a text?".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_by_names_and_not_left() {
        let (folder, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let write = |path: &str, text: &[u8]| fs::write(folder.path().join(path), text).expect("a file");
        fs::create_dir(folder.path().join("sub")).expect("a folder");
        write("sub/b.MD", b"b");
        write("a.txt", b"a");
        write("image.png", b"\x89");
        write(".hidden.md", b"x");
        write("latin.txt", b"\xe9");
        write("null.txt", b"a\0");
        fs::write(outside.path().join("secret.md"), "s").expect("a file");
        std::os::unix::fs::symlink(outside.path().join("secret.md"), folder.path().join("link.md")).expect("a link");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("linked")).expect("a link");
        let found = texts(folder.path()).expect("texts");
        let pair = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        assert_eq!(found.texts, [pair("a.txt", "a"), pair("sub/b.MD", "b")]);
        let skipped: Vec<&str> = found.skipped.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(skipped, ["latin.txt", "link.md", "null.txt"]);
        assert!(texts(&folder.path().join("a.txt")).is_err_and(|error| error.to_string().contains("not a folder")));
    }
}
