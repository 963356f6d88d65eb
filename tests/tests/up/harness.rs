//! `slm up` as a child process on a folder of manifests, and its output line by line.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use slm_tests::swarm::{clean, slm_binary};
use tempfile::TempDir;

/// Nothing here takes long; a test that waits longer has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// `slm`, without the variables of the tests' own environment.
pub(crate) fn slm() -> Command {
    clean(&slm_binary().expect("slm"))
}

/// Runs it to its end; gives exit code, standard output and standard error.
pub(crate) fn output(command: &mut Command) -> (i32, String, String) {
    slm_tests::swarm::output(command).expect("slm runs")
}

/// A family of the parity suite: a small model that is loaded in no time, with adapters.
pub(crate) fn family() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/data/smollm2").canonicalize().expect("the parity suite")
}

/// A folder of manifests.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// With a model `tiny`.
    pub(crate) fn with_model() -> Self {
        let folder = Self::new();
        folder.write("model.yaml", &model(&family()));
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces a file at once, as careful editors do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.path().join(format!(".{name}.new"));
        fs::write(&beside, text).expect("written");
        fs::rename(&beside, self.path().join(name)).expect("renamed");
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("removed");
    }

    /// Puts an adapter of the family into the subfolder `adapter`.
    pub(crate) fn put_adapter(&self, name: &str) {
        let target = self.path().join("adapter");
        fs::create_dir_all(&target).expect("a folder");
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let beside = self.path().join(format!("{file}.new"));
            fs::copy(family().join("adapters").join(name).join(file), &beside).expect("copied");
            fs::rename(beside, target.join(file)).expect("renamed");
        }
    }
}

/// Manifest of the model `tiny`.
pub(crate) fn model(path: &Path) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata:\n  name: tiny\nspec:\n  source:\n    uri: file://{}\n  \
         runtime:\n    precision: F32\n    contextLength: 64\n    maxSequences: 2\n    threads: 1\n",
        path.display()
    )
}

/// Manifest of the adapter `name` on `tiny`.
pub(crate) fn adapter(name: &str, path: &str) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata:\n  name: {name}\nspec:\n  \
         modelRef:\n    name: tiny\n  source:\n    uri: file:{path}\n"
    )
}

/// A running `slm up`. Killed when dropped.
pub(crate) struct Up {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Of the ready line.
    pub http: String,
    /// Of the ready line.
    pub grpc: String,
    seen: Vec<String>,
}

impl Up {
    /// Starts one on free ports and waits until it is ready.
    pub(crate) fn ready(folder: &Folder) -> Self {
        let mut command = slm();
        command.args(["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "-f"]).arg(folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("slm up");
        let stdout = lines(child.stdout.take().expect("piped"));
        let stderr = lines(child.stderr.take().expect("piped"));
        let mut up = Self { child, stdout, stderr, http: String::new(), grpc: String::new(), seen: Vec::new() };
        let Ok(ready) = up.stdout.recv_timeout(TIMEOUT) else {
            panic!("not ready: {:#?}", up.stderr.try_iter().collect::<Vec<_>>());
        };
        let word = |key: &str| {
            let word = ready.split_whitespace().find_map(|word| word.strip_prefix(key));
            word.unwrap_or_else(|| panic!("{ready}")).to_owned()
        };
        (up.http, up.grpc) = (word("http="), word("grpc="));
        assert!(ready.starts_with("ready "), "{ready}");
        up
    }

    /// The next line on standard error that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.stderr.recv_timeout(TIMEOUT) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("`{text}` never came, but {:#?}", self.seen),
            }
        }
    }

    /// `slm get all --json` of it.
    pub(crate) fn get(&self) -> serde_json::Value {
        let (code, stdout, stderr) = output(slm().args(["get", "all", "--json", "--server", &self.grpc]));
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    /// A line on standard error that contains `text`, said before or from now on.
    pub(crate) fn said(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let line = self.wait_for(text);
        self.seen.push(line.clone());
        line
    }

    /// An HTTP request to it: status and JSON.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(&self.http).expect("a connection");
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n", self.http, body.len());
        let request = format!("{head}Content-Type: application/json\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("headers");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    /// The entry of one name.
    pub(crate) fn entry(&self, name: &str) -> Option<serde_json::Value> {
        self.get().as_array().expect("a list").iter().find(|entry| entry["name"] == name).cloned()
    }

    /// Address of the worker of `tiny`.
    pub(crate) fn worker(&self) -> String {
        let entry = self.entry("tiny").expect("the model");
        entry["workers"][0].as_str().expect("a worker").trim_start_matches("http://").to_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("signalled");
    }

    /// Its exit status, and what else it said on standard output.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let rest: Vec<String> = self.stdout.iter().collect();
        (self.child.wait().expect("ended"), rest)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits until nothing listens at an address any more.
pub(crate) fn wait_until_closed(address: &str) {
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < TIMEOUT, "{address} is still open");
        std::thread::yield_now();
    }
}
