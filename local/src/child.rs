//! One child process: its standard input, its output line by line, and its exit.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader},
    process::{self, ChildStdin, Command},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    LOG_FORMAT_VARIABLE,
    event::{ChildId, Event},
};

/// Snapshots that may wait to be written; the child reads as fast as it can.
const LINES_MAX: usize = 16;

/// Output of a child, and its exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChildOutput {
    /// A line of standard output.
    Line(String),
    /// A line of standard error.
    Log(String),
    /// Exit of the child, described. The last event.
    Exited(String),
}

/// A running child. Dropping it closes its standard input, at which it finishes what runs and ends.
#[derive(Debug)]
pub(crate) struct Child {
    input: mpsc::Sender<String>,
    kill: CancellationToken,
}

impl Child {
    /// Starts this program with other arguments, in a process group of its own: Ctrl-C on the terminal is for the
    /// parent, which ends its children in the right order.
    ///
    /// # Errors
    /// The system does not start the process.
    pub(crate) fn start(
        child: ChildId,
        arguments: impl IntoIterator<Item = OsString>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            .env(LOG_FORMAT_VARIABLE, "text")
            // They speak to each other on this machine only, in plain text.
            .env_remove("SLM_TLS_DIR")
            .env_remove("SLM_ACCESS_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut process = command.spawn()?;
        let (input, lines) = mpsc::channel(LINES_MAX);
        if let Some(stdin) = process.stdin.take() {
            tokio::spawn(write(stdin, lines));
        }
        let kill = CancellationToken::new();
        tokio::spawn(attend(process, kill.clone(), EventSender { child, events }));
        Ok(Self { input, kill })
    }

    /// Writes a line to it. One that has ended already does not mind.
    pub(crate) async fn say(&self, line: String) {
        // Its end is told by `Exited`.
        let _ = self.input.send(line).await;
    }

    /// A handle that kills it at once.
    pub(crate) fn killer(&self) -> CancellationToken {
        self.kill.clone()
    }
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

/// Sends the output of one child as events.
struct EventSender {
    child: ChildId,
    events: mpsc::Sender<Event>,
}

impl EventSender {
    async fn tell(&self, what: ChildOutput) {
        // Nobody listens any more only when everything ends.
        let _ = self.events.send(Event::Child(self.child, what)).await;
    }

    async fn each_line(&self, stream: Option<impl AsyncRead + Unpin>, what: fn(String) -> ChildOutput) {
        let Some(stream) = stream else { return };
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.tell(what(line)).await;
        }
    }
}

/// Reads the output of the child, then waits for its exit.
async fn attend(mut process: process::Child, kill: CancellationToken, sender: EventSender) {
    let (output, log) = (process.stdout.take(), process.stderr.take());
    let reading = async {
        tokio::join!(sender.each_line(output, ChildOutput::Line), sender.each_line(log, ChildOutput::Log));
    };
    let ended = tokio::select! {
        () = reading => true,
        () = kill.cancelled() => false,
    };
    if !ended {
        // It may have ended in between, which is what was wanted.
        let _ = process.start_kill();
    }
    let status = tokio::select! {
        status = process.wait() => status,
        () = kill.cancelled(), if ended => {
            let _ = process.start_kill();
            process.wait().await
        }
    };
    let how = status.map_or_else(|error| format!("was lost: {error}"), describe);
    sender.tell(ChildOutput::Exited(how)).await;
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(9)) => "was killed by signal 9 (out of memory, perhaps)".to_owned(),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
