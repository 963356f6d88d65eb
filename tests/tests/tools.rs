//! Calls of tools by a real model that knows none: SmolLM2-135M samples at temperature 1, and every call is one of the tools'.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // A test says what it expects.

mod tools {
    mod calls;
    mod sets;
}
