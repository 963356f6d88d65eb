//! The end of a command: its failure, and the exit code.

use std::{fmt::Display, io, process::ExitCode};

use slm_artifacts::FetchError;
use slm_local::RunError;

use crate::style;

/// The failure of a command.
#[derive(Debug)]
pub enum Failure {
    /// It failed: exit code 1.
    Failed(String),
    /// Wrong usage, or invalid manifests: exit code 2.
    Usage(String),
    /// Ctrl-C: exit code 130.
    Interrupted,
    /// It failed and has printed the reason already: exit code 1.
    AlreadyPrinted,
    /// The reader of standard output has gone, as `head` does: exit code 0.
    OutputClosed,
}

impl Failure {
    /// From an error, in its own words.
    pub fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// From an error in the arguments or the manifests.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("writing the output: {error}")),
        }
    }
}

/// A bad reference is wrong usage; everything else has failed.
impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let message = format!("{}: {error}", error.reason());
        match error {
            FetchError::BadReference { .. } => Self::Usage(message),
            _ => Self::Failed(message),
        }
    }
}

/// Invalid manifests are wrong usage.
impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Manifests(problems) => Self::usage(problems),
            error => Self::failed(error),
        }
    }
}

/// Runs a command until it ends or Ctrl-C is pressed.
pub async fn or_interrupted(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        outcome = command => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

/// Runs what computes or blocks on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Failure::failed(error)))
}

/// Says why it failed and gives the exit code.
pub fn report(outcome: Result<(), Failure>) -> ExitCode {
    let (message, code) = match outcome {
        Ok(()) | Err(Failure::OutputClosed) => return ExitCode::SUCCESS,
        Err(Failure::AlreadyPrinted) => return ExitCode::FAILURE,
        Err(Failure::Interrupted) => return ExitCode::from(130),
        Err(Failure::Failed(message)) => (message, 1),
        Err(Failure::Usage(message)) => (message, 2),
    };
    say(&message);
    ExitCode::from(code)
}

/// Says what went wrong.
pub fn say(message: &str) {
    let (bad, plain) = (style::BAD.render(), style::BAD.render_reset());
    for line in message.lines() {
        anstream::eprintln!("{bad}error:{plain} {line}");
    }
}
