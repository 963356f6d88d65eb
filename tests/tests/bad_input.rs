//! Wrong files, wrong manifests and wrong requests: each is refused, and the message says what is wrong.

mod bad_input {
    mod artifacts;
    mod environment;
    mod formats;
    mod requests;
}
