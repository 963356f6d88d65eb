//! Constrained answers of a real model: SmolLM2-135M samples at temperature 1, and what it says is what was asked for.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod structured {
    mod answers;
    mod harness;
    mod refusals;
    mod schemas;
}
