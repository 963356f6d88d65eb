//! Running `slm`.

use std::{path::Path, process::Command};

/// `slm`, without the variables of the tests' own environment.
pub(crate) fn slm() -> Command {
    slm_tests::swarm::clean(Path::new(env!("CARGO_BIN_EXE_slm")))
}

/// Runs it to its end; gives exit code, standard output and standard error.
pub(crate) fn output(command: &mut Command) -> (i32, String, String) {
    slm_tests::swarm::output(command).expect("slm runs")
}
