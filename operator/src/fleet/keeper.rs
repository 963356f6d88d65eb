//! The task that owns the links: something happened, what is there to ask now, ask it.
//!
//! What should be loaded is decided over the stores alone, by the same admission of names as everywhere; of an adapter's
//! status only `resolved` is read, which is the record of what its source turned out to be.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use kube::{Client, ResourceExt as _, runtime::reflector::ObjectRef};
use slm_proto::v1::WorkerState;
use slm_residency::{
    AdapterAction, Holdings, WorkerClient, next_actions,
    pause::until,
    worker_client::{Event, no_credentials},
};
use slm_tls::Tls;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{FleetView, Marks, PodView, Snapshot, Told, pods::WorkerPod, telling, wanted::Wanted};
use crate::{
    certificates::{self, Kept},
    config::Certificates,
    credentials, gate,
    objects::Objects,
    server::ServerClock,
    telling::Telling,
};

/// Events of links that may wait; links wait beyond that.
const EVENTS_MAX: usize = 1024;

/// What the task lives on.
pub(crate) struct Inputs {
    /// The namespace it looks at.
    pub(crate) namespace: String,
    /// Worker pods, adapters, and who has which name.
    pub(crate) objects: Objects,
    /// Says that pods changed.
    pub(crate) pods_touched: mpsc::Receiver<()>,
    /// Names of objects that changed; any may be an adapter's.
    pub(crate) names: Marks,
    /// How certificates for speaking to workers are kept; without, it is done in plain text.
    pub(crate) certificates: Option<Certificates>,
    /// By which they are made.
    pub(crate) clock: ServerClock,
    /// Where loads are counted.
    pub(crate) telling: Arc<Telling>,
}

/// Pod name and incarnation. Events of an earlier pod of the same name are ignored.
type Whose = (String, u64);

struct Member {
    pod: WorkerPod,
    link: WorkerClient<Whose>,
    state: Result<Arc<WorkerState>, Arc<str>>,
    holdings: Holdings,
    gate: Gate,
}

/// How far a pod's readiness gate is.
#[derive(Debug)]
enum Gate {
    Closed,
    /// It is being opened, until that is done or the pod is gone.
    Opening(Opening),
    Open,
}

/// Ends the attempts when it is dropped.
#[derive(Debug)]
struct Opening(AbortHandle);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Keeper {
    client: Client,
    namespace: String,
    members: HashMap<String, Member>,
    wanted: Wanted,
    objects: Objects,
    tls: Option<Tls>,
    events: mpsc::Sender<(Whose, Event)>,
    gates: JoinSet<()>,
    telling: Arc<Telling>,
    next_id: u64,
    view: FleetView,
    told: Told,
}

/// Runs until `stop`. Gives the reason when it cannot go on before that.
pub(crate) async fn run(
    client: Client,
    inputs: Inputs,
    view: FleetView,
    told: Told,
    stop: CancellationToken,
) -> Option<String> {
    let Inputs { namespace, objects, mut pods_touched, names, certificates, clock, telling } = inputs;
    let mut kept = tokio::select! {
        kept = kept(&client, &namespace, certificates, clock) => kept,
        () = stop.cancelled() => return None,
    };
    let (events, mut told_by_links) = mpsc::channel(EVENTS_MAX);
    let mut keeper = Keeper {
        client,
        namespace,
        members: HashMap::new(),
        wanted: Wanted::default(),
        objects,
        tls: kept.as_ref().map(|kept| kept.tls.clone()),
        events,
        gates: JoinSet::new(),
        telling,
        next_id: 0,
        view,
        told,
    };
    // Before any worker is judged by what it lacks.
    let listed = keeper.objects.adapters.state();
    keeper.adapters(listed.iter().map(|adapter| adapter.name_any()).collect()).await;
    let mut last = Instant::now();
    loop {
        let next = keeper.next_attempt(last);
        tokio::select! {
            () = stop.cancelled() => return None,
            why = certificates_ended(&mut kept) => return Some(why),
            Some(()) = pods_touched.recv() => keeper.pods().await,
            names = names.take() => keeper.adapters(names).await,
            Some((whose, event)) = told_by_links.recv() => keeper.event(&whose, event).await,
            Some(ended) = keeper.gates.join_next_with_id() => if let Err(why) = keeper.gate_ended(ended) {
                return Some(why);
            },
            () = until(next) => {
                last = Instant::now();
                keeper.ask_everyone();
            }
        }
        keeper.publish();
    }
}

/// Nobody is spoken to before there are certificates to do it with.
async fn kept(client: &Client, namespace: &str, policy: Option<Certificates>, clock: ServerClock) -> Option<Kept> {
    match policy {
        Some(policy) => Some(certificates::keep(client.clone(), namespace, policy, clock).await),
        None => None,
    }
}

/// Why certificates are not kept any more. They are, as long as this runs.
async fn certificates_ended(kept: &mut Option<Kept>) -> String {
    match kept {
        Some(kept) => kept.ended().await,
        None => std::future::pending().await,
    }
}

impl Keeper {
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
                concerned.insert(member.pod.model);
            }
        }
        for (name, pod) in now {
            match self.members.get_mut(&name) {
                Some(member) if pod.gate_open => member.gate = Gate::Open,
                // Somebody closed it, or this is older than what we wrote: either way it is asked for again.
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
            self.ask(&name);
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
        match WorkerClient::open(whose, &pod.address, self.tls.as_ref(), self.events.clone()) {
            Ok(link) => {
                let gate = if pod.gate_open { Gate::Open } else { Gate::Closed };
                let state = Err("connecting".into());
                let member = Member { link, state, holdings: Holdings::default(), gate, pod };
                self.members.insert(member.pod.name.clone(), member);
            }
            Err(error) => tracing::error!(pod = pod.name, address = pod.address, %error, "no address"),
        }
    }

    async fn adapters(&mut self, names: BTreeSet<String>) {
        for name in names {
            self.adapter(&name).await;
        }
    }

    /// An adapter came, changed or went, or the name that it claims did: what has not its name is not loaded.
    async fn adapter(&mut self, name: &str) {
        let adapter = self.objects.adapter(name);
        let models = self.wanted.set(name, adapter.as_deref());
        if models.is_empty() {
            return;
        }
        for model in models {
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
                let went_well = outcome.is_ok();
                match member.holdings.loaded(&name, &version, outcome, Instant::now()) {
                    Some(refused) => {
                        self.telling.metrics.loaded(&refused.reason);
                        tracing::warn!(pod, adapter = name, status = refused.message, "load refused");
                    }
                    None if went_well => self.telling.metrics.loaded("Loaded"),
                    // Of a version that nobody waits for any more.
                    None => {}
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
        for step in next_actions(wanted, &member.holdings, now, |_| false) {
            member.holdings.ask(&step, now);
            match secret_of(&self.objects, &step) {
                None => member.link.ask(step, no_credentials()),
                Some((secret, uri)) => {
                    let read = credentials::read(self.client.clone(), self.namespace.clone(), secret, uri);
                    member.link.ask(step, read);
                }
            }
        }
        if matches!(member.gate, Gate::Closed) && member.holdings.complete(wanted, now) {
            let (client, namespace) = (self.client.clone(), self.namespace.clone());
            let (pod, uid) = (member.pod.name.clone(), member.pod.uid.clone());
            let opening = self.gates.spawn(async move { gate::open(client, &namespace, &pod, &uid).await });
            member.gate = Gate::Opening(Opening(opening));
        }
    }

    /// A gate is open.
    ///
    /// # Errors
    /// A panic: nobody would open that gate any more.
    fn gate_ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Result<(), String> {
        let id = match ended {
            Ok((id, ())) => id,
            // Its pod has gone.
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => return Err(format!("opening a readiness gate: {error}")),
        };
        let opened = |member: &&mut Member| matches!(&member.gate, Gate::Opening(opening) if opening.0.id() == id);
        if let Some(member) = self.members.values_mut().find(opened) {
            member.gate = Gate::Open;
        }
        Ok(())
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

/// The Secret that a load has to present, and the source that it is presented to: that of the load, whatever the object
/// says by now.
fn secret_of(objects: &Objects, step: &AdapterAction) -> Option<(String, String)> {
    let AdapterAction::Load { name, version } = step else { return None };
    let adapter = objects.adapter(name)?;
    Some((adapter.spec.source.secret_ref.as_ref()?.name.clone(), version.source.clone()))
}

#[cfg(test)]
mod tests;
