//! Manifests: from files to validated objects with line numbers.
//!
//! A file passes through [`crate::yaml`] (text to a tree with lines), `object` (tree to object, by `structure` against
//! the schema and by `validate` against its CEL rules) and `set` (checks across objects: names, references, rules of
//! routes). All problems are reported, not only the first.

mod object;
mod problem;
mod set;
mod structure;
mod validate;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

pub use problem::{Fault, Problem, Problems};

use crate::{ExternalModel, LoraAdapter, SlmModel, SwarmRoute, schema::Kind, yaml};

/// Bound on the bytes of a manifest.
const FILE_BYTES_MAX: usize = 1 << 20;

/// An object and its location.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// The object.
    pub object: T,
    /// Path of its manifest.
    pub file: PathBuf,
    /// Its first line, from 1.
    pub line: u32,
    lines: HashMap<String, u32>,
}

impl<T> Located<T> {
    /// Line of a field such as `spec.rules[0].when`, or of its nearest existing parent.
    #[must_use]
    pub fn line_of(&self, path: &str) -> u32 {
        line_of(&self.lines, path).unwrap_or(self.line)
    }

    /// Folder that relative paths in it start from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

fn line_of(lines: &HashMap<String, u32>, path: &str) -> Option<u32> {
    let mut path = path;
    while !path.is_empty() {
        if let Some(line) = lines.get(path) {
            return Some(*line);
        }
        path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
    }
    None
}

/// A set of objects without dangling references.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// Base models.
    pub models: Vec<Located<SlmModel>>,
    /// Adapters.
    pub adapters: Vec<Located<LoraAdapter>>,
    /// Models outside of the swarm.
    pub externals: Vec<Located<ExternalModel>>,
    /// Routes.
    pub routes: Vec<Located<SwarmRoute>>,
}

/// Reads a manifest, or every `*.yaml` and `*.yml` of a folder (without subfolders and hidden files).
///
/// # Errors
/// All problems of all manifests.
pub fn read(path: &Path) -> Result<Manifests, Problems> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
        Problems::new(vec![whole_file(path, Fault::Unreadable(error.to_string()))])
    };
    let files = if path.is_dir() {
        manifests_in(path).map_err(|error| unreadable(path, &error))?
    } else {
        vec![path.to_owned()]
    };
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match text(&file) {
            Ok(text) => texts.push((file, text)),
            Err(problem) => problems.push(*problem),
        }
    }
    let manifests = check(texts, &mut problems);
    if problems.is_empty() && manifests.is_empty() {
        problems.push(whole_file(path, Fault::Empty));
    }
    if problems.is_empty() { Ok(manifests) } else { Err(Problems::new(problems)) }
}

/// The same for texts that were read already, with their paths.
///
/// # Errors
/// All problems of all manifests. An empty set is no error.
pub fn from_texts(texts: impl IntoIterator<Item = (PathBuf, String)>) -> Result<Manifests, Problems> {
    let mut problems = Vec::new();
    let manifests = check(texts, &mut problems);
    if problems.is_empty() { Ok(manifests) } else { Err(Problems::new(problems)) }
}

impl Manifests {
    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { models, adapters, externals, routes } = self;
        models.is_empty() && adapters.is_empty() && externals.is_empty() && routes.is_empty()
    }
}

fn check(texts: impl IntoIterator<Item = (PathBuf, String)>, problems: &mut Vec<Problem>) -> Manifests {
    let mut manifests = Manifests::default();
    // An object with problems still exists: a reference to it is not a second problem.
    let mut broken: Vec<(Kind, String)> = Vec::new();
    for (file, text) in texts {
        let documents = match yaml::documents(&text) {
            Ok(documents) => documents,
            Err(error) => {
                let fault = Fault::Yaml(error.what);
                problems.push(Problem { line: error.line, ..whole_file(&file, fault) });
                continue;
            }
        };
        for document in documents.into_iter().flat_map(object::objects) {
            match object::read(&file, &document) {
                Ok(object::Object::Model(model)) => manifests.models.push(*model),
                Ok(object::Object::Adapter(adapter)) => manifests.adapters.push(*adapter),
                Ok(object::Object::External(external)) => manifests.externals.push(*external),
                Ok(object::Object::Route(route)) => manifests.routes.push(*route),
                Err(refused) => {
                    problems.extend(refused.problems);
                    broken.extend(refused.identity);
                }
            }
        }
    }
    problems.extend(set::check(&manifests, &broken));
    manifests
}

fn manifests_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn text(file: &Path) -> Result<String, Box<Problem>> {
    let unreadable = |what: &str| Box::new(whole_file(file, Fault::Unreadable(what.to_owned())));
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(unreadable("this is not a regular file; move it elsewhere, or give it another ending")),
        Err(_) if file.is_symlink() => return Err(unreadable("this is a link to a file that is not there")),
        Err(error) => return Err(unreadable(&error.to_string())),
    }
    let bytes = fs::read(file).map_err(|error| Box::new(whole_file(file, Fault::Unreadable(error.to_string()))))?;
    if bytes.len() > FILE_BYTES_MAX {
        let what = format!("{} bytes, but a manifest has at most {FILE_BYTES_MAX}", bytes.len());
        return Err(Box::new(whole_file(file, Fault::Unreadable(what))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        let fault = Fault::Yaml("not UTF-8; manifests are text in UTF-8".to_owned());
        Box::new(Problem { line: u32::try_from(line).unwrap_or(u32::MAX), ..whole_file(file, fault) })
    })
}

fn whole_file(file: &Path, fault: Fault) -> Problem {
    Problem { file: file.to_owned(), line: 0, object: String::new(), path: String::new(), fault }
}
