//! A swarm of this project: `slm up`, its router and worker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    load::{Api, Endpoint},
    run::interrupt,
};

pub(crate) struct Served {
    swarm: Child,
    pub(crate) endpoint: Endpoint,
}

/// What a swarm is to serve.
pub(crate) struct Swarm {
    /// File of the base model.
    pub(crate) model: PathBuf,
    /// Sequences that decode together.
    pub(crate) sequences: usize,
    /// Largest rank of the adapters.
    pub(crate) rank_max: usize,
    /// Folders of the adapters; the first is `adapter-0`.
    pub(crate) adapters: Vec<PathBuf>,
    /// Whether speculative decoding is on: how well that does depends on the text, so it is off where the engine is
    /// measured.
    pub(crate) guesses: bool,
}

impl Served {
    /// Starts a swarm; `dir` is where its manifest may be written.
    pub(crate) async fn start(slm: &Path, dir: &Path, wanted: &Swarm) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("swarm.yaml"), wanted.manifest())?;
        let mut swarm = Command::new(slm)
            .args(["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "-f"])
            .arg(dir)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| slm.display().to_string())?;
        let mut lines = BufReader::new(swarm.stdout.take().context("no output")?).lines();
        let line = loop {
            match lines.next_line().await? {
                Some(line) if line.starts_with("ready ") => break line,
                Some(_) => {}
                None => bail!("the swarm ended: {}", swarm.wait().await?),
            }
        };
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).context("no http= in ready")?;
        let url = if http.starts_with("http://") { http.to_owned() } else { format!("http://{http}") };
        Ok(Self { swarm, endpoint: Endpoint::new(Api::OpenAi, url)? })
    }

    /// Ends the swarm as Ctrl-C would.
    pub(crate) async fn stop(self) -> Result<()> {
        interrupt(self.swarm).await
    }
}

impl Swarm {
    fn manifest(&self) -> String {
        let header = |kind: &str, name: &str| {
            format!("apiVersion: slmswarm.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
        };
        let mut text = header("SlmModel", "base");
        let (sequences, context, ranks) = (self.sequences, crate::CONTEXT, self.rank_max);
        let method = if self.guesses { "PromptLookup" } else { "Off" };
        text += &format!(
            "spec:\n  source: {{uri: \"file://{}\"}}\n  runtime: {{precision: Int4, maxSequences: {sequences}, \
             contextLength: {context}, speculative: {{method: {method}}}}}\n  \
             adapters: {{slots: {}, maxRank: {ranks}}}\n",
            self.model.display(),
            self.adapters.len().max(1),
        );
        for (i, path) in self.adapters.iter().enumerate() {
            text += "---\n";
            text += &header("LoraAdapter", &format!("adapter-{i}"));
            text += &format!("spec:\n  modelRef: {{name: base}}\n  source: {{uri: \"file://{}\"}}\n", path.display());
        }
        text
    }
}
