//! Diagnosis of worker pods: the reason why a pod is not serving.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde::Deserialize;

use crate::conditions::Verdict;

/// The problem of a pod, if Kubernetes reports one.
pub(super) fn trouble(pod: &Pod) -> Option<Verdict> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        let why = condition.message.clone().unwrap_or_default();
        return Some(Verdict::wrong("Unschedulable", format!("no node takes pod {name}: {why}")));
    }
    status.container_statuses.iter().flatten().find_map(|container| of_container(&name, container))
}

fn of_container(pod: &str, container: &ContainerStatus) -> Option<Verdict> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or_default();
    if matches!(
        reason.as_str(),
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "CreateContainerConfigError"
    ) {
        let why = waiting.and_then(|waiting| waiting.message.clone()).unwrap_or_default();
        return Some(Verdict::wrong(reason, format!("pod {pod} cannot start: {why}")));
    }
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref().and_then(|state| state.terminated.clone()).filter(|ended| ended.exit_code != 0)
    };
    let ended = ended(&container.state).or_else(|| ended(&container.last_state).filter(|_| !container.ready))?;
    if ended.reason.as_deref() == Some("OOMKilled") {
        let what =
            format!("the worker of pod {pod} needs more memory than its limit; raise spec.pod.resources.limits.memory");
        return Some(Verdict::wrong("OutOfMemory", what));
    }
    let last_words = ended.message.as_deref().and_then(last_words);
    let why = last_words.unwrap_or_else(|| format!("it ended with exit code {}", ended.exit_code));
    Some(Verdict::wrong("WorkerFailed", format!("the worker of pod {pod} failed: {why}")))
}

/// A machine-readable log line of the worker.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    message: String,
}

/// The worker's own reason for its exit, from the end of its log.
fn last_words(log: &str) -> Option<String> {
    let failed = log.lines().rev().find_map(|line| {
        let line: Line = serde_json::from_str(line.trim()).ok()?;
        (line.event == "failed").then_some(line.message)
    });
    failed.or_else(|| log.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn verdict(status: Value) -> Option<(String, String)> {
        let pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).expect("a pod");
        trouble(&pod).map(|verdict| (verdict.reason.into_owned(), verdict.message))
    }

    fn container(state: Value, last: Value) -> Value {
        json!({ "containerStatuses": [{
            "name": "worker", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "state": state, "lastState": last,
        }] })
    }

    #[test]
    fn troubles_say_what_to_do() {
        let unscheduled = json!({ "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient nvidia.com/gpu" },
        ] });
        let log = "{\"event\":\"loading\"}\n{\"event\":\"failed\",\"message\":\"DigestMismatch: …\"}\nerror: DigestMismatch: …\n";
        let cases = [
            (unscheduled, Some(("Unschedulable", "Insufficient nvidia.com/gpu"))),
            (
                container(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "not found" } }), json!({})),
                Some(("ImagePullBackOff", "not found")),
            ),
            (
                container(
                    json!({ "waiting": { "reason": "CrashLoopBackOff" } }),
                    json!({ "terminated": { "exitCode": 1, "message": log } }),
                ),
                Some(("WorkerFailed", "DigestMismatch: …")),
            ),
            (
                container(json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }), json!({})),
                Some(("OutOfMemory", "spec.pod.resources.limits.memory")),
            ),
            (container(json!({ "running": {} }), json!({})), None),
        ];
        for (status, expected) in cases {
            let found = verdict(status);
            match (found, expected) {
                (None, None) => {}
                (Some((reason, message)), Some((word, part))) => {
                    assert!(reason == word && message.contains(part), "{reason}: {message}");
                }
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }
}
