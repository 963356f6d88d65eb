//! The life of `slm up`: it follows its manifests, drains, and leaves nothing behind.

use std::{fs, os::fd::OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use slm_proto::v1::FinishReason;
use slm_tests::swarm::{Call, Folder, Swarm, adapter, quickstart_adapter, route};
use tonic::Code;

const RUNTIME: &str = "precision: F32, maxSequences: 2, contextLength: 512";

// Several threads: a client has to see the end of its connection while the test waits for the end of the swarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_followed() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    folder.remove("kitchen")?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let ready = |model: Option<&slm_proto::v1::ModelInfo>| model.is_some_and(|model| model.ready);

    // Added: it answers.
    let soup = Call::new("kitchen", "find me a good recipe for onion soup");
    assert_eq!(client.refusal(soup.request()).await?.code(), Code::NotFound);
    folder.write("kitchen", &adapter("kitchen", "smollm2", &quickstart_adapter("kitchen")))?;
    client.until("kitchen", ready).await?;
    assert_eq!(client.ask(&soup).await?.text.trim(), "recipe");

    // A route over it, then another one under the same name.
    folder.write("assistant", &route("assistant", &[("soup", "kitchen")], "smollm2"))?;
    client.until("assistant", ready).await?;
    let routed = Call { model: "assistant".to_owned(), ..soup.clone() };
    assert_eq!(client.explain(&routed).await?.chosen.context("nobody chosen")?.name, "kitchen");
    folder.write("assistant", &route("assistant", &[("recipe", "banking")], "smollm2"))?;
    client.until_chosen(&routed, "banking").await?;

    // Edited: the other adapter answers under the name.
    let before = client.until("banking", ready).await?.context("banking")?.digest;
    folder.write("banking", &adapter("banking", "smollm2", &quickstart_adapter("travel")))?;
    client.until_replaced("banking", &before).await?;
    let flight = Call::new("banking", "book me a flight from lisbon to oslo next friday");
    assert_eq!(client.ask(&flight).await?.text.trim(), "book_flight");

    // Edited wrongly: said with file and line, and what ran keeps running.
    folder.write("kitchen", &adapter("kitchen", "smollm2", &quickstart_adapter("kitchen")).replace("uri:", "uir:"))?;
    swarm.until_said("kitchen.yaml:9");
    assert!(swarm.said().contains("unknown field; did you mean `uri`?"), "{}", swarm.said());
    assert_eq!(client.ask(&soup).await?.text.trim(), "recipe");
    folder.write("kitchen", &adapter("kitchen", "smollm2", std::path::Path::new("/nowhere")))?;
    swarm.until_said("/nowhere");
    assert_eq!(client.ask(&soup).await?.text.trim(), "recipe");

    // Deleted: gone.
    folder.remove("kitchen")?;
    client.until("kitchen", |model| model.is_none()).await?;
    let status = client.refusal(soup.request()).await?;
    assert_eq!(status.code(), Code::NotFound, "{status:?}");

    let ended = swarm.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    Ok(())
}

// Several threads: a client has to see the end of its connection while the test waits for the end of the swarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_asked_for_drains_what_runs() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    let call = Call::long("smollm2", "Tell me a long story.", 40);
    // Ctrl-C tells the shell that it was Ctrl-C.
    for (signal, code) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 130)] {
        let swarm = Swarm::start(folder.path())?;
        let client = swarm.client()?;
        let alone = client.ask(&call).await?;
        let mut stream = client.stream(call.request()).await?;
        let first = stream.next().await?.context("no first token")?;
        swarm.signal(signal)?;
        let answer = stream.rest().await?;
        assert_eq!((answer.reason, answer.tokens), (FinishReason::Length, 40));
        assert_eq!(format!("{first}{}", answer.text), alone.text);
        let ended = swarm.end()?;
        assert_eq!(ended.status.code(), Some(code), "{signal}: {}", ended.said);
    }
    Ok(())
}

#[test]
fn a_kill_leaves_no_children() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    let swarm = Swarm::start(folder.path())?;
    let children = children_of(swarm.pid())?;
    assert!(children.len() >= 2, "a worker and a router, but {} children", children.len());
    swarm.signal(Signal::SIGKILL)?;
    let ended = swarm.end()?;
    assert_eq!(ended.status.code(), None, "{}", ended.said);
    let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
    for child in &children {
        // Readable is how a process tells its end.
        let ready = poll(&mut [PollFd::new(child, PollFlags::IN)], Some(&limit))?;
        assert_eq!(ready, 1, "a child of the swarm runs on without it");
    }
    Ok(())
}

/// The processes that `parent` started, as handles that no other process can take over.
fn children_of(parent: u32) -> Result<Vec<OwnedFd>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        for pid in fs::read_to_string(thread?.path().join("children"))?.split_whitespace() {
            let pid = Pid::from_raw(pid.parse()?).context("a process id")?;
            children.push(pidfd_open(pid, PidfdFlags::empty())?);
        }
    }
    Ok(children)
}
