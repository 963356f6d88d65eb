//! Which files of a repository or bucket a model or an adapter needs.
//!
//! A repository often has the same weights several times: as safetensors, as pickles, for other frameworks, in other precisions.
//! One form is taken, or the reader is told which there are. Pickles run code when they are read and are never taken.

use glob::{MatchOptions, Pattern};

use super::RemoteFile;

/// Names of a message at most.
const NAMED_MAX: usize = 20;

/// Chosen files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection<'a> {
    /// The folder that their names are relative to, with a slash at its end; or empty.
    pub(crate) root: &'a str,
    /// In order of their names.
    pub(crate) files: Vec<&'a RemoteFile>,
}

/// Chooses of all files of a repository those that `path` names.
///
/// # Errors
/// None fits, or several do where one is meant.
pub(crate) fn select<'a>(files: &'a [RemoteFile], path: &'a str) -> Result<Selection<'a>, String> {
    if path.contains('*') {
        return by_pattern(files, path);
    }
    if let Some(file) = files.iter().find(|file| file.path == path) {
        if is_pickle(&file.path) {
            return Err(format!("{path} is a pickle, which runs code when it is read; publish safetensors or GGUF"));
        }
        let root = path.rsplit_once('/').map_or(0, |(folder, _)| folder.len() + 1);
        return Ok(Selection { root: &path[..root], files: vec![file] });
    }
    let within =
        |file: &&RemoteFile| path.is_empty() || file.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let files: Vec<_> = files.iter().filter(within).collect();
    let Some(first) = files.first() else { return Err(format!("no file or folder {path}")) };
    let root = if path.is_empty() { "" } else { &first.path[..=path.len()] };
    in_folder(root, &files)
}

fn by_pattern<'a>(files: &'a [RemoteFile], path: &'a str) -> Result<Selection<'a>, String> {
    let pattern = Pattern::new(path).map_err(|error| format!("{path}: {error}"))?;
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let fits = |file: &&RemoteFile| pattern.matches_with(&file.path, options) && !is_pickle(&file.path);
    let files: Vec<_> = files.iter().filter(fits).collect();
    if files.is_empty() {
        return Err(format!("no file fits {path}"));
    }
    let root = path.rsplit_once('/').map_or(0, |(folder, _)| folder.len() + 1);
    Ok(Selection { root: &path[..root], files })
}

/// What a folder has for one model or adapter.
fn in_folder<'a>(root: &'a str, files: &[&'a RemoteFile]) -> Result<Selection<'a>, String> {
    let name = |file: &RemoteFile| file.path[root.len()..].to_owned();
    let direct: Vec<_> = files.iter().copied().filter(|file| !name(file).contains('/')).collect();
    let with_end = |end: &str| direct.iter().copied().filter(|file| file.path.ends_with(end)).collect::<Vec<_>>();
    let weights = plain_weights(root, with_end(".safetensors"));
    if !weights.is_empty() {
        let companions = files.iter().copied().filter(|file| is_companion(&name(file)));
        let mut files: Vec<_> = weights.into_iter().chain(companions).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        return Ok(Selection { root, files });
    }
    match &with_end(".gguf")[..] {
        [file] => return Ok(Selection { root, files: vec![file] }),
        [] => {}
        several => {
            let names = several.iter().map(|file| file.path.as_str()).take(NAMED_MAX).collect::<Vec<_>>().join(", ");
            let more = several.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(format!(
                "has {} GGUF files: name one of them after the repository: {names}{more}",
                several.len()
            ));
        }
    }
    if let Some(pickle) = direct.iter().find(|file| is_pickle(&file.path)) {
        return Err(format!(
            "has its weights as a pickle only ({}), which runs code when it is read; publish safetensors or GGUF",
            pickle.path
        ));
    }
    Err("has no weights: neither *.safetensors nor *.gguf lie in it; name a folder of it that has some".to_owned())
}

/// The weights that libraries read by default, where there are such; else all, but for those in the form of another library.
fn plain_weights<'a>(root: &str, all: Vec<&'a RemoteFile>) -> Vec<&'a RemoteFile> {
    let name = |file: &RemoteFile| file.path[root.len()..].to_owned();
    let usual: Vec<_> = all.iter().copied().filter(|file| is_usual(&name(file))).collect();
    if usual.is_empty() {
        all.into_iter().filter(|file| !name(file).starts_with("consolidated")).collect()
    } else {
        usual
    }
}

/// `model.safetensors`, `model-00001-of-00002.safetensors`, `adapter_model.safetensors`.
fn is_usual(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".safetensors") else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = |rest: &str| rest.split_once("-of-").is_some_and(|(a, b)| digits(a) && digits(b));
    matches!(stem, "model" | "adapter_model") || stem.strip_prefix("model-").is_some_and(numbered)
}

/// What is read beside weights: configurations, tokenizers, chat templates, and the modules of an encoder (`1_Pooling/config.json`).
fn is_companion(name: &str) -> bool {
    let is_text = |name: &str| {
        let ends = [".json", ".jinja", ".txt", ".model", ".tiktoken"];
        ends.iter().any(|end| name.ends_with(end)) && !name.ends_with(".bin.index.json")
    };
    match name.split_once('/') {
        None => is_text(name),
        Some((folder, file)) => {
            let module =
                folder.split_once('_').is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
            module && !file.contains('/') && (is_text(file) || is_usual(file))
        }
    }
}

fn is_pickle(path: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"].iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Vec<RemoteFile> {
        paths.iter().map(|path| RemoteFile { path: (*path).to_owned(), ..RemoteFile::default() }).collect()
    }

    fn chosen(paths: &[&str], path: &str) -> Result<(String, Vec<String>), String> {
        let files = tree(paths);
        let selection = select(&files, path)?;
        let names = selection.files.iter().map(|file| file.path[selection.root.len()..].to_owned());
        Ok((selection.root.to_owned(), names.collect()))
    }

    const LLAMA: [&str; 14] = [
        ".gitattributes",
        "README.md",
        "config.json",
        "consolidated.safetensors",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.fp16.safetensors",
        "model.safetensors.index.json",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "tokenizer.json",
    ];

    #[test]
    fn a_model_needs_one_form_of_its_weights() {
        let names = [
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(chosen(&LLAMA, ""), Ok((String::new(), names.map(str::to_owned).into())));
    }

    #[test]
    fn folders_files_and_patterns() {
        let ggufs = ["README.md", "a-Q4_K_M.gguf", "a-Q8_0.gguf", "mm/mmproj.gguf"];
        let adapters = ["banking/adapter_config.json", "banking/adapter_model.safetensors", "bankings/x.safetensors"];
        let encoder = [
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
        ];
        for (files, path, root, expected) in [
            (&ggufs[..], "a-Q8_0.gguf", "", &["a-Q8_0.gguf"][..]),
            (&ggufs, "a-Q8*.gguf", "", &["a-Q8_0.gguf"]),
            (&ggufs, "*.gguf", "", &["a-Q4_K_M.gguf", "a-Q8_0.gguf"]),
            (&ggufs, "mm", "mm/", &["mmproj.gguf"]),
            (&ggufs, "mm/*", "mm/", &["mmproj.gguf"]),
            (&adapters, "banking", "banking/", &["adapter_config.json", "adapter_model.safetensors"]),
            (
                &encoder,
                "",
                "",
                &["1_Pooling/config.json", "2_Dense/model.safetensors", "config.json", "model.safetensors"],
            ),
        ] {
            let expected = expected.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(chosen(files, path), Ok((root.to_owned(), expected)), "{path}");
        }
    }

    #[test]
    fn refusals_say_what_there_is() {
        for (files, path, part) in [
            (&["a.gguf", "b.gguf"][..], "", "has 2 GGUF files: name one of them after the repository: a.gguf, b.gguf"),
            (&["config.json", "pytorch_model.bin"], "", "as a pickle only (pytorch_model.bin)"),
            (&["pytorch_model.bin"], "pytorch_model.bin", "is a pickle"),
            (&["pytorch_model.bin"], "*.bin", "no file fits *.bin"),
            (&["README.md"], "", "has no weights"),
            (&["x/a.gguf"], "y", "no file or folder y"),
        ] {
            let message = chosen(files, path).unwrap_err();
            assert!(message.contains(part), "{path}: {message}");
        }
    }
}
