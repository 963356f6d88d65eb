//! A command that the tests' own environment does not reach, and its output.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::Result;

/// The binary at `path`, without the variables that it reads.
pub fn clean(path: &Path) -> Command {
    let mut command = Command::new(path);
    for variable in
        ["SLM_SERVER", "SLM_HTTP", "SLM_GRPC", "SLM_THREADS", "RUST_LOG", "SLM_LOG_FORMAT", "SLM_DOCKER_CONFIG"]
    {
        command.env_remove(variable);
    }
    command
}

/// Runs it to its end; gives exit code (-1 after a signal), standard output and standard error.
pub fn output(command: &mut Command) -> Result<(i32, String, String)> {
    let Output { status, stdout, stderr } = command.output()?;
    Ok((status.code().unwrap_or(-1), String::from_utf8(stdout)?, String::from_utf8(stderr)?))
}
