//! ONNX Runtime.

use slm_worker::runtime::Runtime;

use super::Check;

/// Whether it is there, and loads.
pub(super) fn onnx_runtime() -> Check {
    match Runtime::load() {
        Ok(runtime) => {
            Check::ok("ONNX Runtime", format!("{} ({})", runtime.path().display(), short(runtime.build_info())))
        }
        // The message says where it was looked for and how to get it.
        Err(error) => {
            let message = error.to_string();
            let (found, remedy) = message.split_once(". ").unwrap_or((&message, ""));
            Check::fail("ONNX Runtime", found, remedy)
        }
    }
}

/// The version alone, of `ORT Build Info: git-branch=rel-1.31.1, git-commit-id=…`.
fn short(info: &str) -> String {
    let branch = info.split(['=', ',']).map(str::trim).find(|part| part.starts_with("rel-"));
    branch.map_or_else(|| info.to_owned(), |branch| branch.trim_start_matches("rel-").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found() {
        assert_eq!(short("ORT Build Info: git-branch=rel-1.31.1, git-commit-id=abc, build type=Release"), "1.31.1");
        assert_eq!(short("something else"), "something else");
    }
}
