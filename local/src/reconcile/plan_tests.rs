//! The plan as tables: from a state, the actions in short words.

use super::{
    super::{Progress, UnusableModel, fixtures::*, progress},
    *,
};
use slm_crds::expert::Expert;
use tonic::Status;

fn words(actions: &[Action]) -> Vec<String> {
    actions.iter().map(word).collect()
}

fn word(action: &Action) -> String {
    match action {
        Action::StartWorker { model, launch } => format!("start {model}@{}", launch.digest),
        Action::Ask { worker, action: AdapterAction::Load { name, version } } => {
            format!("load {name}@{} on {}", version.digest.as_deref().unwrap_or("any"), worker.0)
        }
        Action::Ask { worker, action: AdapterAction::Unload { name, digest } } => {
            format!("unload {name}@{digest} on {}", worker.0)
        }
        Action::Ask { worker, action: AdapterAction::Cancel { name } } => format!("cancel {name} on {}", worker.0),
        Action::StopWorker(id) => format!("stop {}", id.0),
        Action::Publish { swarm, .. } => {
            let models =
                swarm.models.iter().map(|m| format!("{}@{}{:?}", m.name, m.digest, m.workers).replace('"', ""));
            let adapters = swarm.adapters.iter().map(|a| format!("{}@{}", a.name, a.digest));
            let routes = swarm.routes.iter().map(|route| route.name.clone());
            let all: Vec<String> = models.chain(adapters).chain(routes).collect();
            format!("publish {}: {}", swarm.generation, all.join(" "))
        }
    }
}

/// A swarm at rest.
fn at_rest(desired: &Desired) -> Observed {
    let mut observed = Observed::default();
    run(desired, &mut observed);
    assert_eq!(progress(desired, &observed), Progress::Applied);
    observed
}

/// Has the first worker refuse the only adapter.
fn refuse(observed: &mut Observed, desired: &Desired, status: Status, now: Instant) {
    let adapter = &desired.adapters[0];
    observed.workers[0].holdings.loaded(&adapter.name, &adapter.version(), Err(status), now);
}

#[test]
fn from_nothing() {
    let desired = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let mut observed = Observed::default();
    let done = words(&run(&desired, &mut observed));
    let expected = [
        "start smol@m1",
        "publish 1: smol@m1[] banking@b1",
        "load banking@b1 on 1",
        "publish 2: smol@m1[http://1] banking@b1",
    ];
    assert_eq!(done, expected);
    assert_eq!(progress(&desired, &observed), Progress::Applied);
}

#[test]
fn each_change_takes_its_steps_in_order() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let cases = [
        (
            desired(2, &[("smol", "m1")], &[("banking", "smol", "b2")]),
            vec!["load banking@b2 on 1", "publish 3: smol@m1[http://1] banking@b2"],
        ),
        (
            desired(2, &[("smol", "m1")], &[("banking", "smol", "b1"), ("travel", "smol", "t1")]),
            vec!["load travel@t1 on 1", "publish 3: smol@m1[http://1] banking@b1 travel@t1"],
        ),
        (desired(2, &[("smol", "m1")], &[]), vec!["publish 3: smol@m1[http://1]", "unload banking@b1 on 1"]),
        (
            desired(2, &[("smol", "m2")], &[("banking", "smol", "b1")]),
            vec!["start smol@m2", "load banking@b1 on 2", "publish 3: smol@m2[http://2] banking@b1", "stop 1"],
        ),
        (desired(2, &[], &[]), vec!["publish 3: ", "stop 1"]),
        (
            Desired { routes: vec![route("assistant", "smol")], revision: 2, ..before.clone() },
            vec!["publish 3: smol@m1[http://1] banking@b1 assistant"],
        ),
    ];
    for (after, expected) in cases {
        let mut observed = at_rest(&before);
        assert_eq!(words(&run(&after, &mut observed)), expected, "{:?}", after.changes(&before));
        assert_eq!(progress(&after, &observed), Progress::Applied);
    }
}

#[test]
fn an_adapter_that_moves_to_another_base_is_served_until_it_arrived() {
    let models = [("smol", "m1"), ("big", "x1")];
    let before = desired(1, &models, &[("banking", "smol", "b1")]);
    let after = desired(2, &models, &[("banking", "big", "b1")]);
    let mut observed = at_rest(&before);
    let first = plan(&after, &observed, Instant::now());
    assert_eq!(words(&first), ["load banking@b1 on 2"]);
    run(&after, &mut observed);
    assert_eq!(observed.published.swarm.adapters[0].model, "big");
    assert!(observed.workers[0].holdings.resident.is_empty(), "unloaded where it was");
}

#[test]
fn a_change_of_scale_alone_is_a_generation_of_its_own() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let mut after = Desired { revision: 2, ..before.clone() };
    after.adapters[0].scale = 2.0;
    let mut observed = at_rest(&before);
    let expected = ["load banking@b1 on 1", "publish 3: smol@m1[http://1] banking@b1"];
    assert_eq!(words(&run(&after, &mut observed)), expected);
}

#[test]
fn nothing_goes_before_the_router_knows() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let after = desired(2, &[("smol", "m1")], &[]);
    let mut observed = at_rest(&before);
    for action in plan(&after, &observed, Instant::now()) {
        let Action::Publish { swarm, revision } = action else { panic!("{action:?}") };
        observed.published = super::super::Published { swarm, revision, acknowledged: false, ready: false };
    }
    assert!(plan(&after, &observed, Instant::now()).is_empty(), "the router has not said that it uses the snapshot");
    assert_eq!(progress(&after, &observed), Progress::Working);
    observed.published.acknowledged = true;
    assert_eq!(words(&plan(&after, &observed, Instant::now())), ["unload banking@b1 on 1"]);
}

#[test]
fn a_running_load_is_not_started_again() {
    let wanted = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let mut worker = serving(1, "smol", "m1", &[]);
    let (name, version) = ("banking".to_owned(), wanted.adapters[0].version());
    worker.holdings.ask(&AdapterAction::Load { name, version }, Instant::now());
    let observed = Observed { workers: vec![worker], ..Observed::default() };
    assert_eq!(words(&plan(&wanted, &observed, Instant::now())), ["publish 1: smol@m1[http://1] banking@b1"]);
}

#[test]
fn a_refused_version_leaves_the_former_one_serving() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let after = desired(2, &[("smol", "m1")], &[("banking", "smol", "bad")]);
    let mut observed = at_rest(&before);
    refuse(&mut observed, &after, Status::invalid_argument("no tensors"), Instant::now());
    run(&after, &mut observed);
    assert_eq!(observed.published.swarm.adapters[0].digest, "b1");
    assert_eq!(progress(&after, &observed), Progress::Partly(vec!["LoraAdapter banking: no tensors".to_owned()]));
}

#[test]
fn an_adapter_that_is_refused_at_the_start_leaves_the_others_serving() {
    let wanted = desired(1, &[("smol", "m1")], &[("banking", "smol", "bad"), ("travel", "smol", "t1")]);
    let mut observed = Observed::default();
    observed.workers.push(serving(1, "smol", "m1", &[]));
    refuse(&mut observed, &wanted, Status::invalid_argument("no tensors"), Instant::now());
    run(&wanted, &mut observed);
    assert_eq!(progress(&wanted, &observed), Progress::Partly(vec!["LoraAdapter banking: no tensors".to_owned()]));
    assert!(observed.workers[0].holdings.resident.contains_key("travel"), "{observed:?}");
    let refused: Vec<&str> = observed.published.swarm.adapters.iter().map(|entry| entry.refused.as_str()).collect();
    assert_eq!(refused, ["no tensors", ""], "the router can say why");
}

#[test]
fn an_adapter_whose_files_cannot_be_used_leaves_the_others_serving() {
    let mut wanted = desired(1, &[("smol", "m1")], &[("travel", "smol", "t1")]);
    wanted.unusable_adapters.push(unusable("banking", "smol", "adapter_model.safetensors is not here"));
    let mut observed = Observed::default();
    run(&wanted, &mut observed);
    assert_eq!(progress(&wanted, &observed), Progress::Partly(Vec::new()), "its problem was told with the manifests");
    let entry = &observed.published.swarm.adapters[1];
    assert_eq!((entry.name.as_str(), entry.refused.as_str()), ("banking", "adapter_model.safetensors is not here"));
    // Mended.
    let mended = desired(2, &[("smol", "m1")], &[("travel", "smol", "t1"), ("banking", "smol", "b1")]);
    run(&mended, &mut observed);
    assert_eq!(progress(&mended, &observed), Progress::Applied);
    assert!(observed.published.swarm.adapters.iter().all(|entry| entry.refused.is_empty()));
}

#[test]
fn a_model_whose_files_cannot_be_used_leaves_the_others_serving_and_is_named() {
    let mut wanted = desired(1, &[("smol", "m1")], &[("travel", "smol", "t1")]);
    let problem = "two.gguf is not here".to_owned();
    wanted.unusable_models.push(UnusableModel {
        name: "two".to_owned(),
        expert: Expert::default(),
        path: None,
        problem: problem.clone(),
    });
    let mut observed = Observed::default();
    run(&wanted, &mut observed);
    assert_eq!(progress(&wanted, &observed), Progress::Partly(Vec::new()), "its problem was told with the manifests");
    let entry = &observed.published.swarm.models[1];
    assert_eq!((entry.name.as_str(), &entry.refused, entry.workers.len()), ("two", &problem, 0));
    let mended = desired(2, &[("smol", "m1"), ("two", "m2")], &[("travel", "smol", "t1")]);
    run(&mended, &mut observed);
    assert!(observed.published.swarm.models.iter().all(|entry| entry.refused.is_empty() && entry.workers.len() == 1));
}

#[test]
fn files_that_can_no_longer_be_used_leave_the_version_before() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let mut after = Desired { revision: 2, ..before.clone() };
    after.unusable_adapters.push(unusable("banking", "smol", "it is not here"));
    let mut observed = at_rest(&before);
    run(&after, &mut observed);
    let adapters = &observed.published.swarm.adapters;
    assert_eq!((adapters.len(), adapters[0].digest.as_str(), adapters[0].refused.as_str()), (1, "b1", ""));
    assert_eq!(progress(&after, &observed), Progress::Partly(Vec::new()));
}

#[test]
fn a_load_that_finds_no_room_is_work_under_way() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let after = desired(2, &[("smol", "m1")], &[("banking", "smol", "b2")]);
    let mut observed = at_rest(&before);
    let now = Instant::now();
    refuse(&mut observed, &after, Status::resource_exhausted("all slots are taken"), now);
    assert!(plan(&after, &observed, now).is_empty());
    assert_eq!(progress(&after, &observed), Progress::Working);
    let again = observed.next_attempt(now).expect("another attempt");
    assert_eq!(words(&plan(&after, &observed, again)), ["load banking@b2 on 1"]);
}

#[test]
fn the_old_worker_serves_while_the_new_one_starts() {
    let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let after = desired(2, &[("smol", "m2")], &[("banking", "smol", "b1")]);
    let mut observed = at_rest(&before);
    observed.workers.push(Worker::new(WorkerId(2), "smol", &launch("m2")));
    assert!(plan(&after, &observed, Instant::now()).is_empty());
    assert_eq!(progress(&after, &observed), Progress::Working);
    // The manifest is put back: the new worker is not needed any more.
    let back = Desired { revision: 3, ..before };
    assert_eq!(words(&run(&back, &mut observed)), ["publish 3: smol@m1[http://1] banking@b1", "stop 2"]);
    assert_eq!(progress(&back, &observed), Progress::Applied);
}

#[test]
fn a_worker_that_died_is_filled_again() {
    let wanted = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let mut observed = at_rest(&wanted);
    observed.workers[0].phase = Phase::Resting("killed by signal 9".to_owned());
    observed.workers[0].holdings.lost();
    assert_eq!(words(&run(&wanted, &mut observed)), ["publish 3: smol@m1[] banking@b1"]);
    assert_eq!(progress(&wanted, &observed), Progress::Stuck(vec!["SlmModel smol: killed by signal 9".to_owned()]));
    observed.workers.clear();
    let expected = ["start smol@m1", "load banking@b1 on 1", "publish 4: smol@m1[http://1] banking@b1"];
    assert_eq!(words(&run(&wanted, &mut observed)), expected);
}

#[test]
fn what_a_worker_lost_is_loaded_again() {
    let wanted = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1")]);
    let mut observed = at_rest(&wanted);
    tell(&mut observed.workers[0], &[]);
    assert_eq!(words(&run(&wanted, &mut observed))[0], "load banking@b1 on 1");
}
