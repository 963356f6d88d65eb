//! Files whose content is not what their name says, as left by a wrong download.

use std::io;

/// Such files are short, or recognisable by their beginning.
const HEAD_BYTES: usize = 512;
/// Plain-text error answers of servers.
const ANSWERS: [&str; 5] =
    ["entry not found", "repository not found", "not found", "access to model", "invalid username"];

/// Refuses a file that is certainly not the intended one.
pub(crate) fn check(bytes: &[u8]) -> io::Result<()> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD_BYTES)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    let lower = head.to_ascii_lowercase();
    let problem = if lower.starts_with("version https://git-lfs.github.com/spec/") {
        "this is a Git LFS pointer, not the file itself: run `git lfs install` and `git lfs pull` in the repository, or \
         download the file"
            .to_owned()
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        "this is a web page, not the file itself: download the file (on Hugging Face `resolve` in the address, not `blob`)"
            .to_owned()
    } else if lower.starts_with("<?xml") {
        "this is an XML document, such as the error of a file server: download the file again".to_owned()
    } else if bytes.len() < HEAD_BYTES
        && lower.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("\"error\""))
    {
        let line: String = head.chars().take(80).collect();
        format!("this is the answer of a server, {line}, not the file itself: download the file again")
    } else if bytes.len() < HEAD_BYTES && ANSWERS.iter().any(|answer| lower.starts_with(answer)) {
        let line: String = head.lines().next().unwrap_or_default().chars().take(80).collect();
        format!("this is the answer of a server, {line:?}, not the file itself: download the file again")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_file_says_what_it_is() {
        let cases: [(&[u8], &str); 7] = [
            (b"{ \"error\": \"Invalid credentials\"}", "Invalid credentials"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 60776\n", "Git LFS pointer"),
            (b"\n<!DOCTYPE html>\n<html>", "web page"),
            (b"<HTML><body>", "web page"),
            (b"<?xml version=\"1.0\"?><Error>", "XML"),
            (b"Entry not found", "\"Entry not found\""),
            (b"\xef\xbb\xbf<html>", "web page"),
        ];
        for (bytes, word) in cases {
            let message = check(bytes).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        for bytes in [&b""[..], b"GGUF", b"{\"a\": 1}", b"{\"a\": \"error\"}", b"{{ '<html>' }}", &[0xff; 9]] {
            assert!(check(bytes).is_ok(), "{bytes:?}");
        }
    }
}
