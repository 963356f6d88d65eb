use std::time::{Duration, SystemTime};

use slm_convert::{pack::PackedAdapter, peft::AdapterChat};

use super::*;

pub(super) fn info(name: &str, digest: &str) -> AdapterInfo {
    AdapterInfo {
        name: name.into(),
        digest: digest.into(),
        source: "oci://registry/adapter:1".into(),
        source_digest: String::new(),
        scale: 1.0,
        pinned: false,
        rank_max: 4,
        target_modules: vec!["q_proj".into()],
        load_time: Duration::ZERO,
        loaded_at: SystemTime::UNIX_EPOCH,
        chat: AdapterChat::default(),
        readout: None,
        head: None,
    }
}

fn packed() -> LoadedAdapter {
    PackedAdapter::default().into()
}

/// A lease on the version that `name` means, if that is in a slot.
pub(super) fn lease(adapters: &Adapters, name: &str) -> Option<Arc<AdapterLease>> {
    let version = adapters.version(name)?;
    match adapters.claim(&version, &mut adapters.waiter()) {
        Ok(Claimed::Leased(lease)) => Some(lease),
        Ok(Claimed::Reserved(_) | Claimed::Wait) | Err(_) => None,
    }
}

#[test]
fn a_request_keeps_the_version_it_began_with() {
    let adapters = Adapters::new(2, 1, 0);
    adapters.publish(info("sql", "one"), packed()).unwrap();
    let running = lease(&adapters, "sql").unwrap();
    adapters.publish(info("sql", "two"), packed()).unwrap();
    let fresh = lease(&adapters, "sql").unwrap();
    assert_eq!((running.info.digest.as_str(), fresh.info.digest.as_str()), ("one", "two"));
    assert!(adapters.table().get(running.slot()).is_some() && running.slot() != fresh.slot());
    let phases: Vec<_> =
        adapters.residents().iter().map(|r| (r.version.info.digest.clone(), r.serving, r.requests)).collect();
    assert_eq!(phases, [("two".into(), true, 1), ("one".into(), false, 1)]);
    let slot = running.slot();
    drop(running);
    assert!(adapters.table().get(slot).is_none());
    assert_eq!(adapters.residents().len(), 1);
}

/// Loads `name` without a slot for it.
fn known(adapters: &Adapters, name: &str, digest: &str) -> Arc<AdapterVersion> {
    let ticket = adapters.begin_load(name);
    adapters.publish_loaded(ticket.load(), info(name, digest), 3, None).unwrap()
}

/// Answers a request for `version` from `adapter`, if its turn has come.
fn request(adapters: &Adapters, version: &Arc<AdapterVersion>, waiter: &mut Waiter) -> Option<Arc<AdapterLease>> {
    match adapters.claim(version, waiter).unwrap() {
        Claimed::Leased(lease) => Some(lease),
        Claimed::Reserved(reservation) => Some(reservation.fill(version, packed())),
        Claimed::Wait => None,
    }
}

fn locations(adapters: &Adapters) -> Vec<(String, Location)> {
    adapters.residents().iter().map(|r| (r.version.info.name.clone(), r.location)).collect()
}

#[test]
fn there_may_be_more_names_than_slots() {
    let adapters = Adapters::new(1, 1, 1 << 20);
    adapters.publish(info("a", "1"), packed()).unwrap();
    let refused = adapters.publish(info("b", "1"), packed()).unwrap_err();
    assert_eq!(refused, PublishError::NoSlot { slots: 1 });
    let b = known(&adapters, "b", "1");
    let at = |a, b| vec![("a".to_owned(), a), ("b".to_owned(), b)];
    assert_eq!(locations(&adapters), at(Location::Slot, Location::Disk));
    let lease = request(&adapters, &b, &mut adapters.waiter()).unwrap();
    assert_eq!(locations(&adapters), at(Location::HostMemory, Location::Slot));
    assert_eq!((adapters.metrics().evictions.get(), adapters.slots()), (1, (1, 1)));
    drop(lease);
    assert_eq!(locations(&adapters), at(Location::HostMemory, Location::Slot), "it stays until another wants the slot");
}

#[tokio::test]
async fn a_request_waits_for_a_slot_until_another_ends() {
    let adapters = Adapters::new(1, 1, 0);
    let running = adapters.publish(info("a", "1"), packed()).unwrap();
    let b = known(&adapters, "b", "1");
    let (mut waiter, mut freed) = (adapters.waiter(), adapters.slot_freed());
    assert!(request(&adapters, &b, &mut waiter).is_none());
    freed.mark_unchanged();
    drop(running);
    freed.changed().await.unwrap();
    assert!(request(&adapters, &b, &mut waiter).is_some());
}

#[test]
fn a_request_that_leaves_lets_the_next_one_in() {
    let adapters = Adapters::new(1, 1, 0);
    let running = adapters.publish(info("a", "1"), packed()).unwrap();
    let [b, c] = ["b", "c"].map(|name| known(&adapters, name, "1"));
    let (mut first, mut second) = (adapters.waiter(), adapters.waiter());
    assert!(request(&adapters, &b, &mut first).is_none() && request(&adapters, &c, &mut second).is_none());
    drop(running);
    assert!(request(&adapters, &c, &mut second).is_none(), "first come, first served");
    drop(first);
    assert!(request(&adapters, &c, &mut second).is_some());
}

#[test]
fn a_slot_that_is_not_filled_is_free_again() {
    let adapters = Adapters::new(1, 0, 0);
    let a = known(&adapters, "a", "1");
    let Ok(Claimed::Reserved(reservation)) = adapters.claim(&a, &mut adapters.waiter()) else { panic!("a free slot") };
    assert!(matches!(adapters.claim(&a, &mut adapters.waiter()), Ok(Claimed::Wait)), "another fills it");
    drop(reservation);
    assert!(request(&adapters, &a, &mut adapters.waiter()).is_some());
}

#[test]
fn pinned_adapters_keep_their_slots() {
    let adapters = Adapters::new(1, 1, 0);
    adapters.publish(AdapterInfo { pinned: true, ..info("a", "1") }, packed()).unwrap();
    let b = known(&adapters, "b", "1");
    assert_eq!(adapters.claim(&b, &mut adapters.waiter()).unwrap_err(), AllPinned { slots: 1 });
}

#[test]
fn a_replaced_version_without_a_slot_still_answers_its_requests() {
    let adapters = Adapters::new(1, 1, 1 << 20);
    adapters.publish(info("a", "1"), packed()).unwrap();
    let old = known(&adapters, "b", "1");
    adapters.keep_in_host_memory(&old, PackedAdapter::default().into());
    let new = known(&adapters, "b", "2");
    assert!(adapters.in_host_memory(&old).is_some());
    let lease = request(&adapters, &old, &mut adapters.waiter()).unwrap();
    assert_eq!(lease.info.digest, "1");
    assert!(request(&adapters, &new, &mut adapters.waiter()).is_some());
    let slot = lease.slot();
    drop((lease, old));
    assert!(adapters.table().get(slot).is_none());
    assert_eq!(adapters.residents().len(), 2);
}

#[test]
fn unloading_can_be_limited_to_a_version() {
    let adapters = Adapters::new(1, 1, 0);
    adapters.publish(info("a", "1"), packed()).unwrap();
    assert!(!adapters.unload("a", Some("0")) && adapters.version("a").is_some());
    assert!(adapters.unload("a", Some("1")) && adapters.version("a").is_none());
    assert!(!adapters.unload("a", None));
}

#[test]
fn the_last_call_for_a_name_has_it_however_long_its_load_takes() {
    let adapters = Adapters::new(2, 2, 0);
    let superseded = Err(PublishError::Superseded { name: "sql".into() });
    let publish = |load: Load, digest| {
        adapters.publish_loaded(load, info("sql", digest), 0, None).map(|version| version.info.digest.clone())
    };
    // The first comes last.
    let (first, second) = (adapters.begin_load("sql"), adapters.begin_load("sql"));
    assert!(!first.is_current() && second.is_current());
    assert_eq!(publish(second.load(), "two"), Ok("two".into()));
    assert_eq!(publish(first.load(), "one"), superseded);
    drop(second);
    assert_eq!(publish(first.load(), "one"), superseded, "not even once the second is done");
    assert_eq!(adapters.version("sql").unwrap().info.digest, "two");
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
