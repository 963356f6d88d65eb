//! References to a repository of models on a Hub: `hf://ORG/REPO[@REVISION][/PATH]`.

use std::fmt;

use crate::files::{has_star_in_folder, is_path};

/// Reference to a repository, or to files of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubReference {
    /// `ORG/REPO`.
    pub(crate) repository: String,
    /// A branch, a tag or a commit; `main` if none is written.
    pub(crate) revision: String,
    /// A folder, a file, or a file's name with `*`; empty: the whole repository.
    pub(crate) path: String,
}

const FORM: &str = "write hf://ORG/REPO[@REVISION][/PATH]";
/// Longest name of an organisation or a repository; the Hub allows 96.
const NAME_MAX: usize = 96;

impl HubReference {
    /// Parses the part after `hf:`.
    pub(crate) fn parse(rest: &str) -> Result<Self, String> {
        let text = rest.strip_prefix("//").ok_or(FORM)?;
        let mut parts = text.splitn(3, '/');
        let (organisation, named) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, revision) = named.split_once('@').unwrap_or((named, "main"));
        for part in [organisation, name] {
            if !is_name(part) {
                return Err(format!("`{part}` is not the name of an organisation or a repository; {FORM}"));
            }
        }
        // A branch such as refs/pr/1 is written with %2F, as in the Hub's own addresses.
        let revision = percent_encoding::percent_decode_str(revision).decode_utf8_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if revision.is_empty() || revision.contains("..") || !revision.chars().all(plain) {
            return Err(format!("`{revision}` is not a branch, tag or commit; {FORM}"));
        }
        let path = parts.next().unwrap_or_default().trim_end_matches('/');
        if !path.is_empty() && !is_path(path) {
            return Err(format!("`{path}` is not a path within a repository; {FORM}"));
        }
        if has_star_in_folder(path) {
            return Err(format!("`{path}` has * in the name of a folder; only the last part of a path may have it"));
        }
        Ok(Self { repository: format!("{organisation}/{name}"), revision, path: path.to_owned() })
    }

    /// Whether its revision is a commit, which never changes.
    pub(crate) fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// The same at a commit.
    pub(crate) fn at(&self, commit: &str) -> Self {
        Self { revision: commit.to_owned(), ..self.clone() }
    }
}

/// The URI without its scheme, for the names of what was fetched.
impl fmt::Display for HubReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}/{}", self.repository, self.revision, self.path)
    }
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= NAME_MAX
        && text.starts_with(letter)
        && text.chars().all(|c| letter(c) || c == '-' || c == '.')
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let commit = "0123456789".repeat(4);
        for (text, expected) in [
            ("//org/repo", "org/repo@main/"),
            ("//org/repo/", "org/repo@main/"),
            ("//Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf", "Qwen/Qwen3-0.6B-GGUF@main/Qwen3-0.6B-Q8_0.gguf"),
            ("//org/repo@v1.0/adapters/banking", "org/repo@v1.0/adapters/banking"),
            ("//org/repo@refs%2Fpr%2F1/x", "org/repo@refs/pr/1/x"),
            ("//org/repo/q4/*.gguf", "org/repo@main/q4/*.gguf"),
            (&format!("//org/repo@{commit}"), &format!("org/repo@{commit}/")),
        ] {
            let found = HubReference::parse(text).unwrap();
            assert_eq!(found.to_string(), expected, "{text}");
            assert_eq!(found.is_commit(), text.ends_with(&commit));
        }
        for (text, part) in [
            ("org/repo", "write hf://ORG/REPO"),
            ("//org", "`` is not the name"),
            ("//../repo", "`..` is not the name"),
            ("//org/re po", "`re po` is not the name"),
            ("//org/-x", "`-x` is not the name"),
            ("//org/repo@", "`` is not a branch"),
            ("//org/repo@a..b", "is not a branch"),
            ("//org/repo@a?b", "is not a branch"),
            ("//org/repo/a/../b", "is not a path"),
            ("//org/repo//a", "is not a path"),
            ("//org/repo/*/x.gguf", "only the last part"),
        ] {
            let message = HubReference::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
