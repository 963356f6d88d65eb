//! Help, completions, usage.

use crate::harness::{output, slm};

const COMMANDS: [&str; 12] =
    ["up", "run", "chat", "get", "explain", "score", "convert", "fetch", "doctor", "worker", "router", "completions"];

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let (code, stdout, stderr) = output(slm().args([command, "--help"]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{command}");
        assert!(stdout.contains("Usage: slm"), "{command}: {stdout}");
        assert!(command == "help" || stdout.contains("Examples:"), "{command} shows no example");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let (code, stdout, _) = output(slm().arg("--help"));
    assert_eq!(code, 0);
    for word in ["Exit codes:", "130", "Examples:"] {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, stdout, stderr) = output(slm().args(["completions", shell]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        for command in COMMANDS {
            assert!(stdout.contains(command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["rnu"][..],
        &["up"],
        &["score", "--tokens", "1"],
        &["get", "nodes"],
        &["up", "-f", ".", "--drain", "2h"],
        &["up", "-f", ".", "--threads", "0"],
        &["up", "-f", ".", "--threads", "100000"],
    ] {
        let (code, stdout, stderr) = output(slm().args(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains("error:"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn no_swarm_there() {
    for arguments in [&["get"][..], &["run", "tiny", "hello"], &["explain", "tiny", "hello"]] {
        let (code, _, stderr) = output(slm().args(arguments).args(["--server", "127.0.0.1:1"]));
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("no swarm answers at 127.0.0.1:1: "), "{stderr}");
        assert!(stderr.contains("slm up -f DIR"), "{stderr}");
    }
}
