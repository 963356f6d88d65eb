//! The controller without a cluster: stores in memory, an API server that refuses, and a worker that nobody reaches.

use std::time::Duration;

use kube::runtime::watcher;
use serde_json::{Value, json};
use slm_proto::v1::{AdapterPhase, AdapterState};
use tokio::time::timeout;

use super::*;
use crate::{
    fake::Server,
    fleet::{ReconcileStreams, reconcile_requests},
    objects::fixtures::{World, world},
};

const POD: &str = "/api/v1/namespaces/n/pods/p";

struct Case {
    controller: FleetController,
    server: Server,
    world: World,
    /// Held open, so that sending succeeds.
    _streams: ReconcileStreams,
    _events: mpsc::Receiver<(Incarnation, Event)>,
}

fn case() -> Case {
    let (server, world) = (Server::new(), world());
    let (events, link_events) = mpsc::channel(EVENTS_MAX);
    let (requests, streams) = reconcile_requests();
    let controller = FleetController {
        client: server.client(),
        namespace: "n".to_owned(),
        members: HashMap::new(),
        desired: ModelsAdapters::default(),
        objects: world.objects.clone(),
        tls: None,
        hub_endpoint: slm_launch::HUB_ENDPOINT.to_owned(),
        events,
        gates: JoinSet::new(),
        probe: OperatorProbe::new(),
        next_id: 0,
        snapshot: Snapshot::new(),
        touched: BTreeSet::new(),
        view: FleetView::default(),
        requests,
    };
    Case { controller, server, world, _streams: streams, _events: link_events }
}

/// A worker pod of `smol`, with its readiness gate as `conditions` say.
fn pod(uid: &str, conditions: Value) -> k8s_openapi::api::core::v1::Pod {
    named_pod("p", uid, conditions)
}

fn named_pod(name: &str, uid: &str, conditions: Value) -> k8s_openapi::api::core::v1::Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "n", "uid": uid, "labels": { "slmswarm.io/model": "smol" } },
        "status": { "phase": "Running", "podIP": "127.0.0.1", "conditions": conditions },
    }))
    .expect("a pod")
}

fn state(adapters: &[&str]) -> WorkerState {
    let adapters = adapters.iter().map(|name| AdapterState {
        name: (*name).to_owned(),
        source: "oci://r/a:1".to_owned(),
        digest: "sha256:a".to_owned(),
        phase: AdapterPhase::Serving.into(),
        scale: 1.0,
        ..Default::default()
    });
    WorkerState { model: "smol".to_owned(), adapters: adapters.collect(), ..Default::default() }
}

impl Case {
    async fn see(&mut self, uid: &str, conditions: Value) {
        self.world.pods.apply_watcher_event(&watcher::Event::Apply(pod(uid, conditions)));
        self.controller.pods().await;
    }

    async fn hear(&mut self, adapters: &[&str]) {
        let incarnation = ("p".to_owned(), self.controller.next_id);
        self.controller.event(&incarnation, Event::State(Ok(state(adapters)))).await;
    }

    /// Until the attempts under way at the gate have an end.
    async fn gates(&mut self) {
        let ended = timeout(Duration::from_secs(60), self.controller.gates.join_next_with_id()).await;
        self.controller.gate_ended(ended.expect("in time").expect("an attempt")).expect("no panic");
    }

    fn gate_at_server(&self) -> Option<String> {
        self.server.get(POD)?["status"]["conditions"][0]["status"].as_str().map(str::to_owned)
    }
}

/// The pod is idle: after its first word nothing happens there. The API server refuses a few times.
#[tokio::test(start_paused = true)]
async fn the_gate_of_an_idle_pod_opens_after_refusals() {
    let mut case = case();
    case.server.put(POD, json!({ "metadata": { "name": "p", "uid": "u" } }));
    case.world.adapter("banking", "smol", 1);
    case.controller.adapter("banking").await;
    case.see("u", json!([])).await;
    case.hear(&[]).await;
    assert!(case.controller.gates.is_empty(), "its adapter is not there");
    for code in [500, 403, 500] {
        case.server.refuse(code);
    }
    case.hear(&["banking"]).await;
    case.gates().await;
    assert_eq!(case.gate_at_server().as_deref(), Some("True"));
    assert!(matches!(case.controller.members["p"].gate, Gate::Open));
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closed_is_opened_again() {
    let mut case = case();
    case.server.put(POD, json!({ "metadata": { "name": "p", "uid": "u" } }));
    case.see("u", json!([{ "type": "slmswarm.io/AdaptersLoaded", "status": "True" }])).await;
    case.hear(&[]).await;
    assert!(case.controller.gates.is_empty(), "it is open");
    case.see("u", json!([{ "type": "slmswarm.io/AdaptersLoaded", "status": "False" }])).await;
    case.gates().await;
    assert_eq!(case.gate_at_server().as_deref(), Some("True"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_for_a_pod_that_was_replaced() {
    let mut case = case();
    case.see("u", json!([])).await;
    case.server.refuse(500);
    case.hear(&[]).await;
    assert_eq!(case.controller.gates.len(), 1);
    case.see("another", json!([])).await;
    let ended = timeout(Duration::from_secs(60), case.controller.gates.join_next_with_id()).await;
    let ended = ended.expect("in time").expect("an attempt");
    assert!(ended.as_ref().is_err_and(JoinError::is_cancelled));
    case.controller.gate_ended(ended).expect("no fault");
}

#[tokio::test(start_paused = true)]
async fn an_adapter_is_wanted_when_its_name_is_free() {
    let mut case = case();
    let model = case.world.model("x", 1);
    case.world.adapter("x", "smol", 2);
    case.controller.adapter("x").await;
    assert!(case.controller.desired.of("smol").is_empty(), "an older model has the name");
    case.world.models.apply_watcher_event(&watcher::Event::Delete(model));
    case.controller.adapter("x").await;
    assert!(case.controller.desired.of("smol").contains_key("x"));
    case.world.route("x", "smol", 0);
    case.controller.adapter("x").await;
    assert!(case.controller.desired.of("smol").is_empty(), "an older route has come");
}

#[tokio::test(start_paused = true)]
async fn a_load_is_counted_by_its_reason() {
    let mut case = case();
    case.world.adapter("banking", "smol", 1);
    case.controller.adapter("banking").await;
    case.see("u", json!([])).await;
    case.hear(&[]).await;
    let version = case.controller.desired.of("smol")["banking"].version.clone();
    let outcome = Err(tonic::Status::invalid_argument("no tensors"));
    let event = Event::Loaded { name: "banking".to_owned(), version, outcome };
    let incarnation = ("p".to_owned(), case.controller.next_id);
    case.controller.event(&incarnation, event).await;
    let text = case.controller.probe.metrics.text();
    assert!(text.contains("slm_operator_loads_total{reason=\"LoadFailed\"} 1"), "{text}");
}

/// Eight workers and an adapter that is on one of them; then the one that has it changes.
#[tokio::test(start_paused = true)]
async fn an_adapter_moves_without_a_gap() {
    let mut case = case();
    case.world.placed_adapter("banking", "smol", 1);
    case.controller.adapter("banking").await;
    let names: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    let mut loaded = None;
    for name in &names {
        let seen = named_pod(name, name, json!([]));
        case.world.pods.apply_watcher_event(&watcher::Event::Apply(seen));
        case.controller.pods().await;
        let incarnation = (name.clone(), case.controller.next_id);
        case.controller.event(&incarnation, Event::State(Ok(state(&[])))).await;
        let desired = |case: &Case| -> Vec<String> {
            let members = case.controller.members.iter();
            members.filter(|(_, member)| member.desired.contains_key("banking")).map(|(name, _)| name.clone()).collect()
        };
        let now = desired(&case);
        assert_eq!(now.len(), 1, "on one worker");
        let (pod, before) = (now[0].clone(), loaded.replace(now[0].clone()));
        let number = case.controller.members[&pod].link.worker().1;
        if let Some(before) = before.filter(|before| *before != pod) {
            assert!(case.controller.moving(&before).contains("banking"), "it stays until the other one serves it");
            case.controller.event(&(pod.clone(), number), Event::State(Ok(state(&["banking"])))).await;
            assert!(case.controller.moving(&before).is_empty());
            let unloading = &case.controller.members[&before].holdings.unloading;
            assert!(unloading.contains_key("banking"), "asked to unload it at once");
        } else {
            case.controller.event(&(pod.clone(), number), Event::State(Ok(state(&["banking"])))).await;
        }
    }
}
