//! A fetch in a process of its own: this test binary, started again.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::{Value, json};
use slm_artifacts::{Progress, Source, Store};

use crate::common::config;

const ORDER: &str = "SLM_TEST_FETCH";

/// A process that fetches, and then holds what it has until it is told to end.
pub struct Fetcher {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    stdin: Option<ChildStdin>,
}

/// Outcome of the process.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The path.
    Fetched(String),
    /// The error's reason, and its message.
    Failed(String, String),
}

pub fn order(cache: &Path, source: &Source) -> Value {
    json!({"dir": cache, "uri": source.uri, "digest": source.digest})
}

/// The command that runs the child; another may be put before it.
pub fn command(before: &[&str], order: &Value) -> Command {
    let me = env::current_exe().unwrap();
    let mut words = before.iter().map(Into::into).chain([me.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", "child::fetches", "--ignored", "--nocapture"]);
    command.env(ORDER, order.to_string());
    command
}

impl Fetcher {
    pub fn start(cache: &Path, source: &Source) -> Self {
        Self::run(command(&[], &order(cache, source)))
    }

    pub fn run(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        Self { child, lines, stdin }
    }

    /// The rest of the first line with that prefix. Blocks; fails if the process ends without such a line.
    pub fn wait_for(&mut self, begin: &str) -> String {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some(rest) = line.trim_end().strip_prefix(begin) {
                return rest.to_owned();
            }
            line.clear();
        }
        panic!("the process ended before it said `{begin}`");
    }

    /// Blocks until it has what it was to fetch, or not.
    pub fn ended(&mut self) -> Ended {
        let said = self.wait_for("ended ");
        match said.split_once('|').unwrap() {
            ("fetched", path) => Ended::Fetched(path.to_owned()),
            (reason, message) => Ended::Failed(reason.to_owned(), message.to_owned()),
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // It ends when its standard input does.
        self.stdin.take();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "other tests start it as a process of its own"]
fn fetches() {
    let Ok(order) = env::var(ORDER) else { return };
    let order: Value = serde_json::from_str(&order).unwrap();
    let source = |order: &Value| {
        let text = |key: &str| order[key].as_str().map(str::to_owned);
        Source { digest: text("digest"), ..Source::new(text("uri").unwrap()) }
    };
    let store = Store::open(config(Path::new(order["dir"].as_str().unwrap()))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if order["before"].is_object() {
        runtime.block_on(store.fetch(&source(&order["before"]), &mut |_| {})).unwrap();
    }
    println!();
    let mut watch = |progress: Progress| println!("{:?} {}", progress.phase, progress.done);
    let fetched = runtime.block_on(store.fetch(&source(&order), &mut watch));
    match &fetched {
        Ok(artifact) => println!("ended fetched|{}", artifact.path().display()),
        Err(error) => println!("ended {}|{error}", error.reason()),
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
