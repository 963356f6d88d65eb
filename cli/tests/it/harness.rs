//! Running `slm`.

use std::process::{Command, Output};

/// `slm`, without the variables of the tests' own environment.
pub(crate) fn slm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slm"));
    for variable in
        ["SLM_SERVER", "SLM_HTTP", "SLM_GRPC", "SLM_THREADS", "RUST_LOG", "SLM_LOG_FORMAT", "SLM_DOCKER_CONFIG"]
    {
        command.env_remove(variable);
    }
    command
}

/// Runs it to its end; gives exit code, standard output and standard error.
pub(crate) fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("slm runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}
