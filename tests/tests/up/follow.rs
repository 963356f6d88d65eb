//! Edits of manifests under a running swarm, and the ways it ends.

use std::{net::TcpListener, process::Stdio, time::Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::harness::{Folder, TIMEOUT, Up, adapter, model, output, slm, wait_until_closed};

#[test]
fn follows_its_manifests() {
    let folder = Folder::with_model();
    let mut up = Up::ready(&folder);
    let worker = up.worker();

    folder.put_adapter("r4-all");
    folder.write("expert.yaml", &adapter("expert", "adapter"));
    assert!(up.wait_for("applied generation=").contains("+LoraAdapter expert"));
    let first = up.entry("expert").expect("the adapter");
    assert_eq!((first["ready"].as_bool(), first["model"].as_str()), (Some(true), Some("tiny")));

    folder.put_adapter("r8-attn");
    assert!(up.wait_for("applied generation=").contains("~LoraAdapter expert"));
    assert_ne!(up.entry("expert").expect("the adapter")["digest"], first["digest"]);

    let route = "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata:\n  name: any\nspec:\n  \
                 fallback:\n    kind: SlmModel\n    name: tiny\n";
    folder.write("route.yaml", &route.replace("fallback", "fallbak"));
    up.wait_for("route.yaml:6: SwarmRoute any: spec.fallbak: unknown field; did you mean `fallback`?");
    up.wait_for("keeping the last valid ones");
    folder.write("route.yaml", route);
    assert!(up.wait_for("applied generation=").contains("+SwarmRoute any"));

    folder.remove("expert.yaml");
    assert!(up.wait_for("applied generation=").contains("-LoraAdapter expert"));
    assert!(up.entry("expert").is_none());
    assert_eq!(up.worker(), worker, "the worker never changed");

    up.signal(Signal::SIGTERM);
    let (status, rest) = up.ended();
    assert_eq!((status.code(), rest), (Some(0), Vec::new()), "one line on standard output, and a clean end");
}

#[test]
fn another_model_takes_over_with_its_adapters() {
    let folder = Folder::with_model();
    folder.put_adapter("r4-all");
    folder.write("expert.yaml", &adapter("expert", "adapter"));
    let mut up = Up::ready(&folder);
    let before = up.worker();
    let manifest = std::fs::read_to_string(folder.path().join("model.yaml")).expect("the manifest");
    folder.write("model.yaml", &manifest.replace("contextLength: 64", "contextLength: 48"));
    assert!(up.wait_for("applied generation=").contains("~SlmModel tiny"));
    let expert = up.entry("expert").expect("the adapter");
    assert_eq!(expert["workers"][0], format!("http://{}", up.worker()));
    assert_ne!(up.worker(), before);
    wait_until_closed(&before);
}

#[test]
fn a_model_whose_files_are_missing_is_named_and_the_rest_follows() {
    let folder = Folder::with_model();
    let mut up = Up::ready(&folder);
    let missing = model(&folder.path().join("missing.gguf")).replace("name: tiny", "name: other");
    folder.write("other.yaml", &missing);
    up.wait_for("SlmModel other: ");
    folder.put_adapter("r4-all");
    folder.write("expert.yaml", &adapter("expert", "adapter"));
    assert!(up.wait_for("applied generation=").contains("+LoraAdapter expert"));
    let (status, readiness) = up.ask("GET", "/readyz", "");
    let names: Vec<&str> = readiness["missing"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|missing| missing["name"].as_str())
        .collect();
    assert_eq!((status, names), (503, vec!["other"]), "{readiness}");
    let (status, answer) = up.ask("POST", "/v1/completions", r#"{"model": "other", "prompt": "a"}"#);
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("model_not_loadable")), "{answer}");
}

/// A server that accepts and says nothing.
fn silent_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("http://{}/a.tar.gz", listener.local_addr().expect("an address"));
    (listener, uri)
}

#[test]
fn a_source_that_is_silent_holds_up_nothing_else() {
    let (_listener, uri) = silent_server();
    let folder = Folder::with_model();
    let up = Up::ready(&folder);
    folder.write("silent.yaml", &adapter("silent", "x").replace("file:x", &uri));
    folder.put_adapter("r4-all");
    folder.write("expert.yaml", &adapter("expert", "adapter"));
    let is_served = |name: &str| up.entry(name).is_some_and(|entry| entry["ready"] == true);
    let deadline = Instant::now() + TIMEOUT;
    while !is_served("expert") {
        assert!(Instant::now() < deadline, "{:#}", up.get());
        std::thread::yield_now();
    }
    assert!(up.entry("silent").is_some() && !is_served("silent"), "{:#}", up.get());
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().0.code(), Some(0));
}

#[test]
fn a_first_reading_that_waits_for_a_model_ends_when_it_is_told_to() {
    let (listener, uri) = silent_server();
    let folder = Folder::new();
    let manifest = model(&folder.path().join("x"));
    let of = manifest.lines().find(|line| line.contains("uri:")).expect("a source");
    folder.write("model.yaml", &manifest.replace(of, &format!("    uri: {uri}")));
    let mut command = slm();
    command.args(["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "-f"]).arg(folder.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("slm up");
    listener.accept().expect("it asks the server");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("signalled");
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}

#[test]
fn a_pipe_in_place_of_a_model_is_refused() {
    let folder = Folder::new();
    let pipe = folder.path().join("model.gguf");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    folder.write("model.yaml", &model(&pipe));
    let (code, _, stderr) = output(slm().args(["up", "-f"]).arg(folder.path()));
    assert!(code == 1 && stderr.contains("not a regular file"), "{code}: {stderr}");
}

#[test]
fn an_adapter_that_is_refused_leaves_the_former_one() {
    let folder = Folder::with_model();
    folder.put_adapter("r4-all");
    folder.write("expert.yaml", &adapter("expert", "adapter"));
    let mut up = Up::ready(&folder);
    let before = up.entry("expert").expect("the adapter");
    folder.put_adapter("dora");
    assert!(up.wait_for("problem: LoraAdapter expert: ").contains("dora"));
    assert_eq!(up.entry("expert").expect("the adapter"), before);
    folder.put_adapter("r8-attn");
    up.wait_for("~LoraAdapter expert");
}

#[test]
fn a_worker_that_dies_is_replaced_and_filled_again() {
    let folder = Folder::with_model();
    folder.put_adapter("r4-all");
    folder.write("expert.yaml", &adapter("expert", "adapter"));
    let mut up = Up::ready(&folder);
    let before = up.entry("expert").expect("the adapter");
    kill_worker(&up);
    up.wait_for("problem: SlmModel tiny: its worker was killed by signal 9");
    up.wait_for("everything serves again");
    let after = up.entry("expert").expect("the adapter");
    assert_eq!((&after["digest"], &after["ready"]), (&before["digest"], &serde_json::json!(true)));
    assert_ne!(after["workers"], before["workers"]);
}

/// Of the children of `slm up`, the one whose arguments begin with `worker`.
fn kill_worker(up: &Up) {
    let id = up.id();
    let children = std::fs::read_dir("/proc").expect("processes").flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_child = status.lines().any(|line| line.split_whitespace().eq(["PPid:", &id.to_string()]));
        (is_child && arguments.split(|byte| *byte == 0).nth(1) == Some(b"worker")).then_some(pid)
    });
    for pid in children {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    }
}

#[test]
fn nothing_outlives_a_killed_parent() {
    let folder = Folder::with_model();
    let up = Up::ready(&folder);
    let (worker, http, grpc) = (up.worker(), up.http.clone(), up.grpc.clone());
    up.signal(Signal::SIGKILL);
    for address in [worker, http, grpc] {
        wait_until_closed(&address);
    }
}

#[test]
fn ctrl_c_is_exit_code_130() {
    let up = Up::ready(&Folder::with_model());
    up.signal(Signal::SIGINT);
    assert_eq!(up.ended().0.code(), Some(130));
}

#[test]
fn a_worker_ends_with_its_standard_input() {
    let mut command = slm();
    command.args(["worker", "--name", "tiny", "--precision", "F32", "--follow-stdin", "--model"]);
    let child = command.arg(super::harness::family()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("slm");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success());
}

#[test]
fn names_that_do_not_exist_come_with_the_nearest() {
    let up = Up::ready(&Folder::with_model());
    let (code, _, stderr) = output(slm().args(["run", "tinny", "hello", "--server", &up.grpc]));
    assert_eq!(code, 1);
    assert!(stderr.contains("`tinny`; did you mean `tiny`?"), "{stderr}");
}
