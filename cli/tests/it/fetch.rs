//! `slm fetch`, from a web server of one answer.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use serde_json::Value;

use crate::harness::{output, slm};

/// Answers everything with `x`; gives its address.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx").unwrap();
        }
    });
    address
}

/// sha256 of `x`.
const DIGEST: &str = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

#[test]
fn the_path_is_the_output() {
    let cache = tempfile::tempdir().unwrap();
    let uri = format!("http://{}/model.gguf", server());
    let fetch = || {
        let mut command = slm();
        command.arg("fetch").arg(&uri).arg("--cache").arg(cache.path());
        command
    };
    let (code, stdout, stderr) = output(&mut fetch());
    assert_eq!((code, stderr.as_str()), (0, "resolving\ndownloading: 0 B of 1 B\n"), "{stdout}");
    let path = stdout.strip_suffix('\n').unwrap();
    assert!(path.ends_with("/content/model.gguf") && path.starts_with(cache.path().to_str().unwrap()), "{path}");
    assert_eq!(fs::read(path).unwrap(), b"x");
    let (code, stdout, stderr) = output(fetch().args(["--json", "--digest", DIGEST]));
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((json["path"].as_str(), json["digest"].as_str()), (Some(path), Some(DIGEST)));
    assert_eq!((&json["bytes"], &json["stale"]), (&Value::from(1), &Value::from(false)));
    let other = DIGEST.replace("2d71", "3d71");
    let (code, stdout, stderr) = output(fetch().args(["--digest", &other]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("error: DigestMismatch: ") && stderr.contains("model.gguf has digest sha256:2d71"),
        "{stderr}"
    );
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("x.gguf");
    fs::write(&file, "x").unwrap();
    let file = format!("file:{}", file.display());
    for (arguments, part) in [
        (&["ftp://host/key"][..], "BadReference: ftp://host/key: scheme `ftp` is not supported"),
        (&["s3://-/key"], "`-` is not the name of a bucket"),
        (&["hf://org"], "write hf://ORG/REPO"),
        (&["https://example.com/x", "--digest", "abc"], "digest `abc` is not sha256:"),
        (&["https://example.com/x", "--docker-config", "/nowhere/config.json"], "/nowhere/config.json: "),
        (&["https://example.com/x", "--username", "a"], "--password-file"),
        (&["https://example.com/x", "--artifacts-max", "lots"], "such as 20GiB"),
        (&[&file, "--digest", DIGEST], "is used in place"),
    ] {
        let (code, stdout, stderr) = output(slm().arg("fetch").args(arguments).arg("--cache").arg(cache.path()));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
    }
    let (code, stdout, _) = output(slm().args(["fetch", &file, "--cache"]).arg(cache.path()));
    assert_eq!(code, 0);
    assert!(stdout.trim_end().ends_with("/x.gguf"));
}
