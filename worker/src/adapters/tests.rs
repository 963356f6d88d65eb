use super::*;

pub(super) fn info(name: &str, digest: &str) -> AdapterInfo {
    AdapterInfo {
        name: name.into(),
        digest: digest.into(),
        source: "oci://registry/adapter:1".into(),
        source_digest: String::new(),
        scale: 1.0,
        rank_max: 4,
        target_modules: vec!["q_proj".into()],
        load_time: Duration::ZERO,
        loaded_at: SystemTime::UNIX_EPOCH,
        chat: AdapterChat::default(),
        readout: None,
        head: None,
    }
}

pub(super) fn packed() -> LoadedAdapter {
    slm_convert::pack::PackedAdapter::default().into()
}

#[test]
fn a_request_keeps_the_version_it_began_with() {
    let adapters = Adapters::new(2, 1);
    adapters.publish(info("sql", "one"), packed()).unwrap();
    let running = adapters.lease("sql").unwrap();
    adapters.publish(info("sql", "two"), packed()).unwrap();
    let fresh = adapters.lease("sql").unwrap();
    assert_eq!((running.info.digest.as_str(), fresh.info.digest.as_str()), ("one", "two"));
    assert!(adapters.table().get(running.slot()).is_some() && running.slot() != fresh.slot());
    let phases: Vec<_> = adapters.residents().iter().map(|r| (r.info.digest.clone(), r.serving, r.requests)).collect();
    assert_eq!(phases, [("two".into(), true, 1), ("one".into(), false, 1)]);
    let slot = running.slot();
    drop(running);
    assert!(adapters.table().get(slot).is_none());
    assert_eq!(adapters.residents().len(), 1);
}

#[test]
fn names_and_retiring_versions_are_bounded() {
    let adapters = Adapters::new(1, 1);
    adapters.publish(info("a", "1"), packed()).unwrap();
    assert_eq!(adapters.publish(info("b", "1"), packed()).unwrap_err(), PublishError::Full { slots: 1 });
    let one = adapters.lease("a").unwrap();
    adapters.publish(info("a", "2"), packed()).unwrap();
    let two = adapters.lease("a").unwrap();
    assert_eq!(adapters.publish(info("a", "3"), packed()).unwrap_err(), PublishError::Retiring { retiring: 1 });
    drop((one, two));
    adapters.publish(info("a", "3"), packed()).unwrap();
}

#[test]
fn unloading_can_be_limited_to_a_version() {
    let adapters = Adapters::new(1, 1);
    adapters.publish(info("a", "1"), packed()).unwrap();
    assert!(!adapters.unload("a", Some("0")) && adapters.lease("a").is_some());
    assert!(adapters.unload("a", Some("1")) && adapters.lease("a").is_none());
    assert!(!adapters.unload("a", None));
}

#[test]
fn the_last_call_for_a_name_has_it_however_long_its_load_takes() {
    let adapters = Adapters::new(2, 2);
    let superseded = Err(PublishError::Superseded { name: "sql".into() });
    let publish = |load: Load, digest| {
        adapters.publish_loaded(load, info("sql", digest), packed()).map(|lease| lease.info.digest.clone())
    };
    // The first comes last.
    let (first, second) = (adapters.begin_load("sql"), adapters.begin_load("sql"));
    assert!(!first.is_current() && second.is_current());
    assert_eq!(publish(second.load(), "two"), Ok("two".into()));
    assert_eq!(publish(first.load(), "one"), superseded);
    drop(second);
    assert_eq!(publish(first.load(), "one"), superseded, "not even once the second is done");
    assert_eq!(adapters.lease("sql").unwrap().info.digest, "two");
    drop(first);

    // One that was cancelled while it was packed.
    let ticket = adapters.begin_load("sql");
    let load = ticket.load();
    drop(ticket);
    assert_eq!(publish(load, "three"), superseded);

    // One that was unloaded meanwhile.
    let ticket = adapters.begin_load("sql");
    assert!(adapters.unload("sql", None));
    assert_eq!(publish(ticket.load(), "three"), superseded);
    let ticket = adapters.begin_load("sql");
    assert!(!adapters.unload("sql", Some("two")));
    assert_eq!(publish(ticket.load(), "four"), Ok("four".into()));
    drop(ticket);
    assert!(adapters.shared.lock().loads.is_empty());
}
