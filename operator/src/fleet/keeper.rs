//! The task that owns the links: something happened, what is there to ask now, ask it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    runtime::reflector::{ObjectRef, Store},
};
use slm_crds::LoraAdapter;
use slm_proto::v1::WorkerState;
use slm_residency::{
    Holdings, Link, Step,
    link::{Event, no_credentials},
    pause::until,
    steps,
};
use slm_tls::Tls;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FleetView, PodView, Snapshot, Told, pods::WorkerPod, telling, wanted::Wanted};
use crate::{
    certificates::{self, Kept},
    config::Certificates,
    credentials, gate,
};

/// Events of links that may wait; links wait beyond that.
const EVENTS_MAX: usize = 1024;

/// What the task lives on.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The namespace it looks at.
    pub(crate) namespace: String,
    /// Worker pods.
    pub(crate) pods: Store<Pod>,
    /// Says that pods changed.
    pub(crate) pods_touched: mpsc::Receiver<()>,
    /// Adapters.
    pub(crate) adapters: Store<LoraAdapter>,
    /// Names of adapters that changed.
    pub(crate) adapters_touched: mpsc::Receiver<String>,
    /// How certificates for speaking to workers are kept; without, it is done in plain text.
    pub(crate) certificates: Option<Certificates>,
}

/// A pod, and which of those that had its name: what an earlier one said does not count.
type Whose = (String, u64);

struct Member {
    pod: WorkerPod,
    link: Link<Whose>,
    state: Result<Arc<WorkerState>, Arc<str>>,
    holdings: Holdings,
    gate_open: bool,
}

struct Keeper {
    client: Client,
    namespace: String,
    members: HashMap<String, Member>,
    wanted: Wanted,
    adapters: Store<LoraAdapter>,
    tls: Option<Tls>,
    events: mpsc::Sender<(Whose, Event)>,
    next_id: u64,
    view: FleetView,
    told: Told,
}

/// Runs until `stop`.
pub(crate) async fn run(client: Client, inputs: Inputs, view: FleetView, told: Told, stop: CancellationToken) {
    let Inputs { namespace, pods, mut pods_touched, adapters, mut adapters_touched, certificates } = inputs;
    let kept = tokio::select! {
        kept = kept(&client, &namespace, certificates) => kept,
        () = stop.cancelled() => return,
    };
    let (events, mut told_by_links) = mpsc::channel(EVENTS_MAX);
    let mut keeper = Keeper {
        client,
        namespace,
        members: HashMap::new(),
        wanted: Wanted::default(),
        adapters,
        tls: kept.as_ref().map(|kept| kept.tls.clone()),
        events,
        next_id: 0,
        view,
        told,
    };
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = pods_touched.recv() => keeper.pods(&pods).await,
            Some(name) = adapters_touched.recv() => keeper.adapter(&name).await,
            Some((whose, event)) = told_by_links.recv() => keeper.event(&whose, event).await,
            () = until(keeper.next_attempt(last)) => {
                last = Instant::now();
                keeper.ask_everyone();
            }
        }
        keeper.publish();
    }
}

/// Nobody is spoken to before there are certificates to do it with.
async fn kept(client: &Client, namespace: &str, policy: Option<Certificates>) -> Option<Kept> {
    match policy {
        Some(policy) => Some(certificates::keep(client.clone(), namespace, policy).await),
        None => None,
    }
}

impl Keeper {
    fn next_attempt(&self, last: Instant) -> Option<Instant> {
        self.members.values().filter_map(|member| member.holdings.next_attempt(last)).min()
    }

    async fn pods(&mut self, pods: &Store<Pod>) {
        let now: HashMap<String, WorkerPod> =
            pods.state().iter().filter_map(|pod| WorkerPod::read(pod)).map(|pod| (pod.name.clone(), pod)).collect();
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(name, member)| {
                now.get(*name).is_none_or(|pod| pod.uid != member.pod.uid || pod.address != member.pod.address)
            })
            .map(|(name, _)| name.clone())
            .collect();
        let mut concerned = BTreeSet::new();
        for name in gone {
            if let Some(member) = self.members.remove(&name) {
                concerned.insert(member.pod.model);
            }
        }
        for (name, pod) in now {
            match self.members.get_mut(&name) {
                Some(member) => member.gate_open = pod.gate_open,
                None => {
                    concerned.insert(pod.model.clone());
                    self.join(pod);
                }
            }
        }
        for model in concerned {
            self.tell_model(&model).await;
            let names: Vec<String> = self.wanted.of(&model).keys().cloned().collect();
            self.tell_adapters(names).await;
        }
    }

    fn join(&mut self, pod: WorkerPod) {
        self.next_id += 1;
        let whose = (pod.name.clone(), self.next_id);
        match Link::open(whose, &pod.address, self.tls.as_ref(), self.events.clone()) {
            Ok(link) => {
                let (gate_open, state) = (pod.gate_open, Err("connecting".into()));
                let member = Member { link, state, holdings: Holdings::default(), gate_open, pod };
                self.members.insert(member.pod.name.clone(), member);
            }
            Err(error) => tracing::error!(pod = pod.name, address = pod.address, %error, "no address"),
        }
    }

    async fn adapter(&mut self, name: &str) {
        let reference = ObjectRef::new(name).within(&self.namespace);
        let adapter = self.adapters.get(&reference);
        for model in self.wanted.set(name, adapter.as_deref()) {
            let members: Vec<String> =
                self.members.values().filter(|member| member.pod.model == model).map(|m| m.pod.name.clone()).collect();
            for pod in members {
                self.ask(&pod);
            }
        }
        self.tell_adapters([name.to_owned()]).await;
    }

    async fn event(&mut self, whose: &Whose, event: Event) {
        let pod = &whose.0;
        let Some(member) = self.members.get_mut(pod).filter(|member| member.link.worker() == whose) else { return };
        let model = member.pod.model.clone();
        let (mut adapters, mut worker) = (Vec::new(), false);
        match event {
            Event::State(state) => {
                let state = state.map(Arc::new).map_err(Arc::from);
                match (&member.state, &state) {
                    (Ok(before), Ok(now)) => {
                        adapters = telling::changed(before, now);
                        worker = telling::worker_changed(before, now);
                    }
                    (Err(_), Err(_)) => {}
                    _ => {
                        worker = true;
                        adapters = self.wanted.of(&model).keys().cloned().collect();
                    }
                }
                match &state {
                    Ok(now) => member.holdings.tell(now, Instant::now()),
                    // What it holds when it is back, it will say.
                    Err(_) => member.holdings.lost(),
                }
                member.state = state;
            }
            Event::Loaded { name, version, outcome } => {
                if let Some(refused) = member.holdings.loaded(&name, &version, outcome, Instant::now()) {
                    tracing::warn!(pod, adapter = name, status = refused.message, "load refused");
                }
                adapters.push(name);
            }
            Event::Unloaded { name, digest, outcome } => {
                member.holdings.unloaded(&name, &digest, outcome, Instant::now());
                return;
            }
        }
        self.ask(pod);
        if worker {
            self.tell_model(&model).await;
        }
        self.tell_adapters(adapters).await;
    }

    fn ask_everyone(&mut self) {
        let pods: Vec<String> = self.members.keys().cloned().collect();
        for pod in pods {
            self.ask(&pod);
        }
    }

    /// Asks one worker for what it lacks, and lets it serve when it lacks nothing.
    fn ask(&mut self, pod: &str) {
        let Some(member) = self.members.get_mut(pod) else { return };
        let Ok(state) = &member.state else { return };
        if state.draining {
            return;
        }
        let wanted = self.wanted.of(&member.pod.model);
        let now = Instant::now();
        for step in steps(wanted, &member.holdings, now, |_| false) {
            member.holdings.ask(&step, now);
            match secret_of(&self.adapters, &self.namespace, &step) {
                None => member.link.ask(step, no_credentials()),
                Some(secret) => {
                    member.link.ask(step, credentials::read(self.client.clone(), self.namespace.clone(), secret));
                }
            }
        }
        if !member.gate_open && member.holdings.complete(wanted) {
            member.gate_open = true;
            gate::open(self.client.clone(), self.namespace.clone(), member.pod.name.clone());
        }
    }

    fn publish(&self) {
        let snapshot: Snapshot = self
            .members
            .iter()
            .map(|(name, member)| {
                let view = PodView {
                    name: name.clone(),
                    model: member.pod.model.clone(),
                    state: member.state.clone(),
                    holdings: member.holdings.clone(),
                };
                (name.clone(), Arc::new(view))
            })
            .collect::<BTreeMap<_, _>>();
        self.view.publish(snapshot);
    }

    async fn tell_model(&self, model: &str) {
        // The controllers are gone only when the operator ends.
        let _ = self.told.models.send(ObjectRef::new(model).within(&self.namespace)).await;
    }

    async fn tell_adapters(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let _ = self.told.adapters.send(ObjectRef::new(&name).within(&self.namespace)).await;
        }
    }
}

/// The Secret that a load has to present.
fn secret_of(adapters: &Store<LoraAdapter>, namespace: &str, step: &Step) -> Option<String> {
    let Step::Load { name, .. } = step else { return None };
    let adapter = adapters.get(&ObjectRef::new(name).within(namespace))?;
    Some(adapter.spec.source.secret_ref.as_ref()?.name.clone())
}
