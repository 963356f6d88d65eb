//! `slm doctor` on a machine without ONNX Runtime.

use crate::harness::{output, slm};

#[test]
fn the_doctor_names_what_is_missing() {
    let run =
        |format: &[&str]| output(slm().arg("doctor").args(format).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so"));
    let (code, stdout, _) = run(&["--json"]);
    assert_eq!(code, 1);
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let runtime = checks.iter().find(|check| check["name"] == "ONNX Runtime").expect("the check");
    assert_eq!((report["verdict"].as_str(), runtime["verdict"].as_str()), (Some("fail"), Some("fail")));
    let (code, stdout, stderr) = run(&[]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    assert!(stdout.contains("fail  ONNX Runtime") && !stdout.contains('\u{1b}'), "{stdout}");
}
