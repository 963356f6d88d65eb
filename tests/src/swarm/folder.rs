//! Manifests of a test, and the artifacts they name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::real;

/// A folder of manifests, removed at its end.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// The quickstart's base and its three experts.
    pub fn quickstart(runtime: &str) -> Result<Self> {
        let folder = Self::new()?;
        folder.write("smollm2", &base("smollm2", &real::gguf()?, runtime))?;
        for name in ["banking", "travel", "kitchen"] {
            folder.write(name, &adapter(name, "smollm2", &quickstart_adapter(name)))?;
        }
        Ok(folder)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes `NAME.yaml`. A reader sees the old manifest or the new one, never half of one.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join(format!("{name}.yaml"));
        let partial = self.path().join(format!(".{name}.partial"));
        fs::write(&partial, text).with_context(|| partial.display().to_string())?;
        fs::rename(&partial, &path).with_context(|| path.display().to_string())
    }

    /// Removes `NAME.yaml`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path().join(format!("{name}.yaml"));
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    /// A copy of the quickstart's adapter `from` under artifacts, for a test that damages it.
    pub fn copy_adapter(&self, from: &str, to: &str) -> Result<PathBuf> {
        let copy = self.path().join("artifacts").join(to);
        fs::create_dir_all(&copy)?;
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(quickstart_adapter(from).join(file), copy.join(file))?;
        }
        Ok(copy)
    }
}

/// The folder of one of the quickstart's adapters.
pub fn quickstart_adapter(name: &str) -> PathBuf {
    repository().join("examples/quickstart/adapters").join(name)
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// A manifest of a base model; `runtime` is YAML in flow style, such as `precision: F32, maxSequences: 4`.
pub fn base(name: &str, file: &Path, runtime: &str) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata:\n  name: {name}\nspec:\n  \
         source:\n    uri: file://{}\n  runtime: {{{runtime}}}\n",
        file.display()
    )
}

/// A manifest of an adapter.
pub fn adapter(name: &str, model: &str, folder: &Path) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata:\n  name: {name}\nspec:\n  \
         modelRef:\n    name: {model}\n  source:\n    uri: file://{}\n",
        folder.display()
    )
}

/// A manifest of a route: pairs of a regular expression over the text and the adapter it leads to, then the model that
/// answers the rest.
pub fn route(name: &str, rules: &[(&str, &str)], fallback: &str) -> String {
    let mut text = format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata:\n  name: {name}\nspec:\n  \
         fallback: {{kind: SlmModel, name: {fallback}}}\n  rules:\n"
    );
    for (pattern, expert) in rules {
        text.push_str(&format!(
            "    - when: text.matches('{pattern}')\n      to: {{kind: LoraAdapter, name: {expert}}}\n"
        ));
    }
    text
}
