//! `slm` as a child of the test.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use wait_timeout::ChildExt as _;

use super::{Client, folder::repository};

/// The first start of a model converts it.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// Longest time to end: running answers are finished first.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Longest time to an expected line of output, far beyond what any takes.
const SAID_LIMIT: Duration = Duration::from_secs(60);

/// A running `slm up`, ended when dropped.
#[derive(Debug)]
pub struct Swarm {
    /// `http://ADDRESS` of the OpenAI-compatible endpoint.
    pub http: String,
    /// `http://ADDRESS` of the gRPC endpoint.
    pub grpc: String,
    process: Process,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// Everything that it said, both streams.
    pub said: String,
}

impl Ended {
    /// Asserts that it failed with `code` and said each of `parts`.
    pub fn assert_refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{}", self.said);
        for part in parts {
            assert!(self.said.contains(part), "expected {part:?} in:\n{}", self.said);
        }
    }
}

/// The child of `parent`, whichever of its threads started it, that runs `slm COMMAND`.
pub fn child_pid(parent: u32, command: &str) -> Result<u32> {
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        let runs = |line: Vec<u8>| line.split(|&byte| byte == 0).any(|argument| argument == command.as_bytes());
        let is_it = |pid: &&str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(runs);
        if let Some(pid) = children.split_whitespace().find(is_it) {
            return Ok(pid.parse()?);
        }
    }
    bail!("no {command} among the children of {parent}")
}

/// Resident bytes of a process that no file stands behind.
pub fn anonymous_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

/// The binary: `$SLM_BIN`, else `slm` of the build that this test belongs to.
pub fn slm_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SLM_BIN").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    // target/release/deps/TEST-HASH
    let test = env::current_exe()?;
    let path = test.ancestors().nth(2).context("a test outside a target folder")?.join("slm");
    ensure!(path.exists(), "{}: not there; run `make build`, or set SLM_BIN", path.display());
    Ok(path)
}

/// `slm` with some arguments.
pub fn slm(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(slm_binary()?);
    command.args(arguments).current_dir(repository());
    Ok(command)
}

fn up(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = slm(&["up", "-f"])?;
    command.arg(folder);
    for (flag, any) in [("--http", "127.0.0.1:0"), ("--grpc", "127.0.0.1:0")] {
        if !arguments.contains(&flag) {
            command.args([flag, any]);
        }
    }
    command.args(arguments);
    Ok(command)
}

impl Swarm {
    /// Starts the manifests in `folder` and waits until all of them are ready.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// The same with further arguments.
    pub fn start_with(folder: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_command(up(folder, arguments)?)
    }

    /// The same with environment variables.
    pub fn start_in(folder: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Result<Self> {
        let mut command = up(folder, arguments)?;
        command.envs(environment.iter().copied());
        Self::start_command(command)
    }

    fn start_command(command: Command) -> Result<Self> {
        let (mut process, lines) = Process::spawn(command)?;
        let begun = Instant::now();
        let ready = loop {
            match lines.recv_timeout(READY_LIMIT.saturating_sub(begun.elapsed())) {
                Ok(line) if line.starts_with("ready ") => break line,
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("not ready in {READY_LIMIT:?}:\n{}", process.said()),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = process.child.wait()?;
                    bail!("slm up ended before it was ready, {status}:\n{}", process.said());
                }
            }
        };
        let address = |name: &str| -> Result<String> {
            let (_, rest) = ready.split_once(name).with_context(|| format!("{ready:?}: no {name}"))?;
            let address = rest.split_whitespace().next().unwrap_or_default();
            let address = address.trim_start_matches("http://").trim_start_matches("https://");
            let address: SocketAddr = address.parse().with_context(|| format!("{ready:?}: {name}"))?;
            Ok(format!("http://{address}"))
        };
        Ok(Self { http: address("http=")?, grpc: address("grpc=")?, process })
    }

    /// Starts manifests that cannot be served, and waits for the end.
    pub fn refused(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Ended> {
        let mut command = up(folder, arguments)?;
        command.envs(environment.iter().copied());
        Process::spawn(command)?.0.end(READY_LIMIT)
    }

    /// A gRPC client.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.grpc)
    }

    /// Everything that it said so far, both streams.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Waits until it says `part`.
    ///
    /// # Panics
    /// After a minute without it.
    pub fn until_said(&self, part: &str) {
        assert!(self.process.said.wait_for(part, SAID_LIMIT), "waited {SAID_LIMIT:?} for: {part}");
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.process.pid()?, signal)?)
    }

    /// Waits for its end.
    pub fn end(self) -> Result<Ended> {
        let Self { process, .. } = self;
        process.end(END_LIMIT)
    }

    /// Asks it to end, and waits.
    pub fn stop(self) -> Result<Ended> {
        self.signal(Signal::SIGTERM)?;
        self.end()
    }
}

/// Runs `command` to its end.
pub fn run(command: Command) -> Result<Ended> {
    Process::spawn(command)?.0.end(READY_LIMIT)
}

/// A child whose output is kept.
#[derive(Debug)]
struct Process {
    child: Child,
    said: Arc<Transcript>,
    readers: Vec<thread::JoinHandle<()>>,
    /// Ends the child when this process ends, in whatever way: statics are never dropped.
    guard: Child,
}

impl Process {
    /// The child, and the lines of its standard output as they come.
    fn spawn(mut command: Command) -> Result<(Self, mpsc::Receiver<String>)> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        // Its standard input ends when we do.
        let guard = Command::new("sh")
            .args(["-c", "read -r _ || kill -TERM \"$1\"", "guard", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let said = Arc::new(Transcript::default());
        let (sender, lines) = mpsc::channel();
        let (output, errors) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
        let readers = vec![keep(output, &said, Some(sender)), keep(errors, &said, None)];
        Ok((Self { child, said, readers, guard }, lines))
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    fn said(&self) -> String {
        self.said.lock().clone()
    }

    fn end(mut self, limit: Duration) -> Result<Ended> {
        let status =
            self.child.wait_timeout(limit)?.with_context(|| format!("did not end in {limit:?}:\n{}", self.said()))?;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ok(Ended { status, said: self.said() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // First, so that it does not end somebody else who got the number.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), self.pid()) {
            let _ = kill(pid, Signal::SIGTERM);
            if !matches!(self.child.wait_timeout(END_LIMIT), Ok(Some(_))) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            eprintln!("--- the swarm said\n{}---", self.said());
        }
    }
}

fn keep(
    stream: impl Read + Send + 'static,
    said: &Arc<Transcript>,
    lines: Option<mpsc::Sender<String>>,
) -> thread::JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.add(&line);
            if let Some(lines) = &lines {
                // Nobody waits for lines after the ready one.
                let _ = lines.send(line);
            }
        }
    })
}

/// Everything that was said so far.
#[derive(Debug, Default)]
struct Transcript {
    text: Mutex<String>,
    grew: Condvar,
}

impl Transcript {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &str) {
        let _ = writeln!(self.lock(), "{line}");
        self.grew.notify_all();
    }

    /// Whether `part` was said in time.
    fn wait_for(&self, part: &str, limit: Duration) -> bool {
        let lacks = |text: &mut String| !text.contains(part);
        let waited = self.grew.wait_timeout_while(self.lock(), limit, lacks).unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }
}
