//! `slm up` on the tiny model of the parity suite: it follows its manifests, says what cannot run, and ends.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod up {
    mod follow;
    mod harness;
    mod refusals;
}
