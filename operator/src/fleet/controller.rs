//! Fleet controller: the task that owns the links to the workers and requests loads and unloads.
//!
//! The desired adapters come from the stores alone, by the same admission of names as everywhere else. Of an adapter's
//! status only `resolved` is read, the digest that its source was resolved to.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use kube::{Client, ResourceExt as _, runtime::reflector::ObjectRef};
use slm_proto::v1::WorkerState;
use slm_residency::{
    AdapterAction, DesiredAdapters, Holdings, Version, VersionState, WorkerClient, next_actions,
    pause::until,
    worker_client::{Event, no_credentials},
};
use slm_tls::Tls;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    FleetView, PendingNames, PodView, ReconcileRequests, Snapshot, desired_adapters::DesiredAdapters as ModelsAdapters,
    pods::WorkerPod, state_diff,
};
use crate::{
    certificates::{self, RotatingCertificates},
    config::Certificates,
    credentials, gate,
    objects::Objects,
    probe::OperatorProbe,
    server::ServerClock,
    source,
};

/// Bound on pending events; links wait beyond that.
const EVENTS_MAX: usize = 1024;

/// Inputs of the task.
pub(crate) struct Inputs {
    /// Namespace of the swarm.
    pub(crate) namespace: String,
    /// Stores of worker pods, adapters and name owners.
    pub(crate) objects: Objects,
    /// Signal that pods changed.
    pub(crate) pods_touched: mpsc::Receiver<()>,
    /// Names of changed objects; any of them may be an adapter's.
    pub(crate) names: PendingNames,
    /// Certificate lifetimes for mutual TLS with workers. Unset: plain text.
    pub(crate) certificates: Option<Certificates>,
    /// Server of `hf:` sources.
    pub(crate) hub_endpoint: String,
    /// Clock that certificates are issued by.
    pub(crate) clock: ServerClock,
    /// Counter of loads.
    pub(crate) probe: Arc<OperatorProbe>,
}

/// Pod name and incarnation. Events of an earlier pod of the same name are ignored.
type Incarnation = (String, u64);

struct Member {
    pod: WorkerPod,
    link: WorkerClient<Incarnation>,
    state: Result<Arc<WorkerState>, Arc<str>>,
    holdings: Holdings,
    /// Adapters that are placed here.
    desired: DesiredAdapters,
    gate: Gate,
}

impl Member {
    /// Adapters that are here and placed elsewhere, or nowhere.
    fn surplus(&self) -> impl Iterator<Item = &String> {
        self.holdings.resident.keys().filter(|name| !self.desired.contains_key(*name))
    }

    fn serves(&self, name: &str, version: &Version) -> bool {
        self.holdings.version_state(name, version) == VersionState::Resident
    }
}

/// State of a pod's readiness gate.
#[derive(Debug)]
enum Gate {
    Closed,
    /// An attempt to open it is running, until it succeeds or the pod is gone.
    Opening(Opening),
    Open,
}

/// Aborts the attempts when dropped.
#[derive(Debug)]
struct Opening(AbortHandle);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct FleetController {
    client: Client,
    namespace: String,
    members: HashMap<String, Member>,
    desired: ModelsAdapters,
    objects: Objects,
    tls: Option<Tls>,
    hub_endpoint: String,
    events: mpsc::Sender<(Incarnation, Event)>,
    gates: JoinSet<()>,
    probe: Arc<OperatorProbe>,
    next_id: u64,
    /// What the view shows, and the pods of which that is not true any more.
    snapshot: Snapshot,
    touched: BTreeSet<String>,
    view: FleetView,
    requests: ReconcileRequests,
}

/// Runs until `stop`. Gives the reason when it has to end earlier.
pub(crate) async fn run(
    client: Client,
    inputs: Inputs,
    view: FleetView,
    requests: ReconcileRequests,
    stop: CancellationToken,
) -> Option<String> {
    let Inputs { namespace, objects, mut pods_touched, names, certificates, hub_endpoint, clock, probe } = inputs;
    let mut rotating = tokio::select! {
        rotating = first_certificates(&client, &namespace, certificates, clock) => rotating,
        () = stop.cancelled() => return None,
    };
    let (events, mut link_events) = mpsc::channel(EVENTS_MAX);
    let mut controller = FleetController {
        client,
        namespace,
        members: HashMap::new(),
        desired: ModelsAdapters::default(),
        objects,
        tls: rotating.as_ref().map(|rotating| rotating.tls.clone()),
        hub_endpoint,
        events,
        gates: JoinSet::new(),
        probe,
        next_id: 0,
        snapshot: Snapshot::new(),
        touched: BTreeSet::new(),
        view,
        requests,
    };
    // The desired adapters must be known before any worker is compared with them.
    let listed = controller.objects.adapters.state();
    controller.adapters(listed.iter().map(|adapter| adapter.name_any()).collect()).await;
    let mut last = Instant::now();
    loop {
        let next = controller.next_attempt(last);
        tokio::select! {
            () = stop.cancelled() => return None,
            why = certificates_ended(&mut rotating) => return Some(why),
            Some(()) = pods_touched.recv() => controller.pods().await,
            names = names.take() => controller.adapters(names).await,
            Some((incarnation, event)) = link_events.recv() => controller.event(&incarnation, event).await,
            Some(ended) = controller.gates.join_next_with_id() => if let Err(why) = controller.gate_ended(ended) {
                return Some(why);
            },
            () = until(next) => {
                last = Instant::now();
                controller.request_all();
            }
        }
        controller.publish();
    }
}

/// No worker is contacted before there are certificates.
async fn first_certificates(
    client: &Client,
    namespace: &str,
    policy: Option<Certificates>,
    clock: ServerClock,
) -> Option<RotatingCertificates> {
    match policy {
        Some(policy) => Some(certificates::start_rotation(client.clone(), namespace, policy, clock).await),
        None => None,
    }
}

/// Waits until the certificate rotation ends, which is a fault, and gives the reason.
async fn certificates_ended(rotating: &mut Option<RotatingCertificates>) -> String {
    match rotating {
        Some(rotating) => rotating.ended().await,
        None => std::future::pending().await,
    }
}

impl FleetController {
    fn next_attempt(&self, last: Instant) -> Option<Instant> {
        self.members.values().filter_map(|member| member.holdings.next_attempt(last)).min()
    }

    async fn pods(&mut self) {
        let pods = self.objects.pods.state();
        let now: HashMap<String, WorkerPod> =
            pods.iter().filter_map(|pod| WorkerPod::read(pod)).map(|pod| (pod.name.clone(), pod)).collect();
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(name, member)| {
                now.get(*name).is_none_or(|pod| pod.uid != member.pod.uid || pod.address != member.pod.address)
            })
            .map(|(name, _)| name.clone())
            .collect();
        let (mut concerned, mut closed) = (BTreeSet::new(), Vec::new());
        for name in gone {
            if let Some(member) = self.members.remove(&name) {
                self.touched.insert(name);
                concerned.insert(member.pod.model);
            }
        }
        for (name, pod) in now {
            match self.members.get_mut(&name) {
                Some(member) if pod.gate_open => member.gate = Gate::Open,
                // Closed by someone else, or an event older than our own write: request it again in either case.
                Some(member) if matches!(member.gate, Gate::Open) => {
                    member.gate = Gate::Closed;
                    closed.push(name);
                }
                Some(_) => {}
                None => {
                    concerned.insert(pod.model.clone());
                    self.join(pod);
                }
            }
        }
        for name in closed {
            self.request(&name);
        }
        for model in concerned {
            self.place_all(&model);
            self.reconcile_model(&model).await;
            let names: Vec<String> = self.desired.of(&model).keys().cloned().collect();
            self.reconcile_adapters(names).await;
        }
    }

    fn join(&mut self, pod: WorkerPod) {
        self.next_id += 1;
        let incarnation = (pod.name.clone(), self.next_id);
        match WorkerClient::open(incarnation, &pod.address, self.tls.as_ref(), self.events.clone()) {
            Ok(link) => {
                let gate = if pod.gate_open { Gate::Open } else { Gate::Closed };
                let (state, holdings) = (Err("connecting".into()), Holdings::default());
                let member = Member { link, state, holdings, desired: DesiredAdapters::new(), gate, pod };
                self.touched.insert(member.pod.name.clone());
                self.members.insert(member.pod.name.clone(), member);
            }
            Err(error) => tracing::error!(pod = pod.name, address = pod.address, %error, "invalid pod address"),
        }
    }

    async fn adapters(&mut self, names: BTreeSet<String>) {
        for name in names {
            self.adapter(&name).await;
        }
    }

    /// An adapter or the owner of its name changed. An adapter that does not own its name is not loaded.
    async fn adapter(&mut self, name: &str) {
        let adapter = self.objects.adapter(name);
        let models = self.desired.set(name, adapter.as_deref());
        if models.is_empty() {
            return;
        }
        for model in models {
            for pod in self.place(&model, name) {
                self.request(&pod);
            }
        }
        self.reconcile_adapters([name.to_owned()]).await;
    }

    async fn event(&mut self, incarnation: &Incarnation, event: Event) {
        let pod = &incarnation.0;
        let Some(member) = self.members.get_mut(pod).filter(|member| member.link.worker() == incarnation) else {
            return;
        };
        self.touched.insert(pod.clone());
        let model = member.pod.model.clone();
        let (mut adapters, mut worker) = (Vec::new(), false);
        match event {
            Event::State(state) => {
                let state = state.map(Arc::new).map_err(Arc::from);
                match (&member.state, &state) {
                    (Ok(before), Ok(now)) => {
                        adapters = state_diff::changed(before, now);
                        worker = state_diff::worker_changed(before, now);
                    }
                    (Err(_), Err(_)) => {}
                    _ => {
                        worker = true;
                        adapters = self.desired.of(&model).keys().cloned().collect();
                    }
                }
                match &state {
                    Ok(now) => member.holdings.tell(now, Instant::now()),
                    // A worker reports its adapters again when it reconnects.
                    Err(_) => member.holdings.lost(),
                }
                member.state = state;
            }
            Event::Loaded { name, version, outcome } => {
                let went_well = outcome.is_ok();
                match member.holdings.loaded(&name, &version, outcome, Instant::now()) {
                    Some(refused) => {
                        self.probe.metrics.loaded(&refused.reason);
                        tracing::warn!(pod, adapter = name, status = refused.message, "load refused");
                    }
                    None if went_well => self.probe.metrics.loaded("Loaded"),
                    // A version that is no longer desired.
                    None => {}
                }
                adapters.push(name);
            }
            Event::Unloaded { name, digest, outcome } => {
                member.holdings.unloaded(&name, &digest, outcome, Instant::now());
                return;
            }
        }
        self.request(pod);
        if !adapters.is_empty() {
            self.release_moved(&model, pod);
        }
        if worker {
            self.reconcile_model(&model).await;
        }
        self.reconcile_adapters(adapters).await;
    }

    fn request_all(&mut self) {
        let pods: Vec<String> = self.members.keys().cloned().collect();
        for pod in pods {
            self.request(&pod);
        }
    }

    /// The pods of `model`, by name.
    fn pods_of(&self, model: &str) -> Vec<String> {
        self.members.values().filter(|member| member.pod.model == model).map(|member| member.pod.name.clone()).collect()
    }

    /// Places an adapter of `model`, or takes it from its workers. Gives the pods of the model.
    fn place(&mut self, model: &str, adapter: &str) -> Vec<String> {
        let pods = self.pods_of(model);
        let placed = self.desired.of(model).get(adapter);
        let here = placed.map(|placed| placed.pods(adapter, &pods)).unwrap_or_default();
        for pod in &pods {
            let Some(member) = self.members.get_mut(pod) else { continue };
            match placed.filter(|_| here.contains(&pod.as_str())) {
                Some(placed) => member.desired.insert(adapter.to_owned(), placed.version.clone()),
                None => member.desired.remove(adapter),
            };
        }
        pods
    }

    /// Places all adapters of `model`: its pods changed.
    fn place_all(&mut self, model: &str) {
        let pods = self.pods_of(model);
        let mut desired: HashMap<&str, DesiredAdapters> = HashMap::new();
        for (name, placed) in self.desired.of(model) {
            for pod in placed.pods(name, &pods) {
                desired.entry(pod).or_default().insert(name.clone(), placed.version.clone());
            }
        }
        for pod in &pods {
            if let Some(member) = self.members.get_mut(pod) {
                member.desired = desired.remove(pod.as_str()).unwrap_or_default();
            }
        }
        for pod in pods {
            self.request(&pod);
        }
    }

    /// Adapters of `pod` that are placed on other pods now, and not served by all of these yet: they stay until then.
    fn moving(&self, pod: &str) -> BTreeSet<String> {
        let Some(member) = self.members.get(pod) else { return BTreeSet::new() };
        let adapters = self.desired.of(&member.pod.model);
        let moves = |name: &str| {
            let Some(placed) = adapters.get(name) else { return false };
            let others = self.members.values().filter(|other| other.desired.contains_key(name));
            let mut others = others.filter(|other| other.pod.model == member.pod.model);
            others.any(|other| !other.serves(name, &placed.version))
        };
        member.surplus().filter(|name| moves(name)).cloned().collect()
    }

    /// What other pods of `model` kept until `pod` served it may go.
    fn release_moved(&mut self, model: &str, pod: &str) {
        let others = self.members.values().filter(|other| other.pod.model == model && other.pod.name != pod);
        let with_surplus = others.filter(|other| other.surplus().next().is_some());
        let names: Vec<String> = with_surplus.map(|other| other.pod.name.clone()).collect();
        for name in names {
            self.request(&name);
        }
    }

    /// Requests the missing adapters of one worker, and opens its readiness gate when none is missing.
    fn request(&mut self, pod: &str) {
        let moving = self.moving(pod);
        let Some(member) = self.members.get_mut(pod) else { return };
        let Ok(state) = &member.state else { return };
        if state.draining {
            return;
        }
        let now = Instant::now();
        for step in next_actions(&member.desired, &member.holdings, now, |name| moving.contains(name)) {
            self.touched.insert(pod.to_owned());
            member.holdings.ask(&step, now);
            match secret_of(&self.objects, &step) {
                None => member.link.ask(step, no_credentials()),
                Some((secret, uri)) => {
                    let server = source::server(&uri, &self.hub_endpoint).to_owned();
                    let read = credentials::read(self.client.clone(), self.namespace.clone(), secret, server);
                    member.link.ask(step, read);
                }
            }
        }
        if matches!(member.gate, Gate::Closed) && member.holdings.complete(&member.desired, now) {
            let (client, namespace) = (self.client.clone(), self.namespace.clone());
            let (pod, uid) = (member.pod.name.clone(), member.pod.uid.clone());
            let opening = self.gates.spawn(async move { gate::open(client, &namespace, &pod, &uid).await });
            member.gate = Gate::Opening(Opening(opening));
        }
    }

    /// An attempt to open a readiness gate has ended.
    ///
    /// # Errors
    /// A panic: nothing else would open that gate.
    fn gate_ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Result<(), String> {
        let id = match ended {
            Ok((id, ())) => id,
            // The pod is gone.
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => return Err(format!("the task that opens a readiness gate failed: {error}")),
        };
        let opened = |member: &&mut Member| matches!(&member.gate, Gate::Opening(opening) if opening.0.id() == id);
        if let Some(member) = self.members.values_mut().find(opened) {
            member.gate = Gate::Open;
        }
        Ok(())
    }

    /// Shows the pods as they are now. Only those that changed are copied: a pod may have hundreds of adapters.
    fn publish(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        for name in std::mem::take(&mut self.touched) {
            let Some(member) = self.members.get(&name) else {
                self.snapshot.remove(&name);
                continue;
            };
            let view = PodView {
                name: name.clone(),
                model: member.pod.model.clone(),
                state: member.state.clone(),
                holdings: member.holdings.clone(),
            };
            self.snapshot.insert(name, Arc::new(view));
        }
        self.view.publish(self.snapshot.clone());
    }

    async fn reconcile_model(&self, model: &str) {
        // The controllers are gone only when the operator ends.
        let _ = self.requests.models.send(ObjectRef::new(model).within(&self.namespace)).await;
    }

    async fn reconcile_adapters(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let _ = self.requests.adapters.send(ObjectRef::new(&name).within(&self.namespace)).await;
        }
    }
}

/// The Secret for a load, and the source that it authenticates to: that of the load, even if the object has changed
/// since.
fn secret_of(objects: &Objects, step: &AdapterAction) -> Option<(String, String)> {
    let AdapterAction::Load { name, version } = step else { return None };
    let adapter = objects.adapter(name)?;
    Some((adapter.spec.source.secret_ref.as_ref()?.name.clone(), version.source.clone()))
}

#[cfg(test)]
mod tests;
