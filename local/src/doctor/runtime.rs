//! Check of ONNX Runtime.

use std::path::Path;

use slm_worker::runtime::Runtime;

use super::Check;

/// ONNX Runtime: found and loadable, or not.
pub(super) fn onnx_runtime() -> Check {
    match Runtime::load() {
        Ok(runtime) => {
            let real = runtime.path().canonicalize().unwrap_or_else(|_| runtime.path().to_owned());
            let version = version(&real).unwrap_or_else(|| runtime.build_info().to_owned());
            Check::ok("ONNX Runtime", format!("{version}: {}", runtime.path().display()))
        }
        // The message says where it was looked for and how to get it.
        Err(error) => {
            let message = error.to_string();
            let parts = message.split_once("; ").or_else(|| message.split_once(". "));
            let (found, remedy) = parts.unwrap_or((&message, ""));
            Check::fail("ONNX Runtime", found, remedy)
        }
    }
}

/// The version, from the file name that wheels give the library: `libonnxruntime.so.1.31.1`.
fn version(path: &Path) -> Option<String> {
    let (_, version) = path.file_name()?.to_str()?.split_once(".so.")?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_name() {
        assert_eq!(version(Path::new("/lib/libonnxruntime.so.1.31.1")).as_deref(), Some("1.31.1"));
        assert_eq!(version(Path::new("/lib/libonnxruntime.so")), None);
    }
}
