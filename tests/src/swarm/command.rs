//! A command that the tests' own environment does not reach, and its output.

use std::{
    path::Path,
    process::{Command, Output},
};

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
///
/// # Panics
/// It cannot be started, or its output is not UTF-8.
pub fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}
