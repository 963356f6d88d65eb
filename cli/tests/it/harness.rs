//! Running `slm`.

use std::{path::Path, process::Command};

pub(crate) use slm_tests::swarm::output;

/// `slm`, without the variables of the tests' own environment.
pub(crate) fn slm() -> Command {
    slm_tests::swarm::clean(Path::new(env!("CARGO_BIN_EXE_slm")))
}
