//! Loads, unloads and requests of one name in many of the orders in which they can come: `make loom`.

use shuttle::{
    check_random,
    thread::{self, JoinHandle},
};

use slm_convert::pack::PackedAdapter;

use super::{
    tests::{info, lease},
    *,
};

/// Orders that are tried, each from a seed of its own. Every lock that is taken is a point where another thread may go on.
const ORDERS: usize = 20_000;

fn version(digest: &str) -> LoadedAdapter {
    let mut packed = PackedAdapter::default();
    digest.clone_into(&mut packed.digest);
    packed.into()
}

/// A request: what it holds is in its slot from its first look to its last.
fn request(adapters: &Adapters) -> JoinHandle<()> {
    let adapters = adapters.clone();
    thread::spawn(move || {
        for _ in 0..2 {
            let Some(lease) = lease(&adapters, "sql") else { continue };
            for _ in 0..2 {
                let packed = adapters.table().get(lease.slot()).expect("a lease has its slot");
                assert_eq!(packed.digest(), lease.info.digest, "a slot of two versions");
                thread::yield_now();
            }
        }
    })
}

fn load(adapters: &Adapters, digest: &'static str) -> JoinHandle<()> {
    let adapters = adapters.clone();
    thread::spawn(move || {
        let ticket = adapters.begin_load("sql");
        thread::yield_now();
        let placed = adapters.reserve("sql").map(|reservation| (reservation, version(digest)));
        match adapters.publish_loaded(ticket.load(), info("sql", digest), 0, placed) {
            Ok(version) => assert_eq!(version.info.digest, digest),
            Err(PublishError::Superseded { .. }) => {}
            Err(error) => unreachable!("{error}"),
        }
    })
}

#[test]
fn a_lease_keeps_its_slot_and_every_slot_comes_back() {
    check_random(
        || {
            let adapters = Adapters::new(1, 2, 0);
            adapters.publish(info("sql", "zero"), version("zero")).unwrap();
            let unloading = adapters.clone();
            let threads = [
                load(&adapters, "one"),
                load(&adapters, "two"),
                request(&adapters),
                request(&adapters),
                thread::spawn(move || {
                    unloading.unload("sql", Some("zero"));
                }),
            ];
            for thread in threads {
                thread.join().unwrap();
            }
            adapters.unload("sql", None);
            let state = adapters.shared.lock();
            assert_eq!((state.slots.free(), state.names.len(), state.loads.is_empty()), (vec![0, 1, 2], 0, true));
            drop(state);
            assert!((0..3).all(|slot| adapters.table().get(slot).is_none()));
        },
        ORDERS,
    );
}

/// Two adapters that share one slot, each with requests of its own: whoever has a lease reads its own adapter, nobody waits for
/// ever, and both are known at the end.
#[test]
fn adapters_that_share_a_slot_take_turns() {
    check_random(
        || {
            let adapters = Adapters::new(1, 2, 1 << 20);
            for name in ["sql", "chat"] {
                let ticket = adapters.begin_load(name);
                adapters.publish_loaded(ticket.load(), info(name, name), 0, None).unwrap();
            }
            let request = |name: &'static str| {
                let adapters = adapters.clone();
                thread::spawn(move || {
                    let Some(version) = adapters.version(name) else { unreachable!("nobody unloads {name}") };
                    let mut waiter = adapters.waiter();
                    let lease = loop {
                        match adapters.claim(&version, &mut waiter).unwrap() {
                            Claimed::Leased(lease) => break lease,
                            Claimed::Reserved(reservation) => break reservation.fill(&version, self::version(name)),
                            Claimed::Wait => thread::yield_now(),
                        }
                    };
                    let loaded = adapters.table().get(lease.slot()).expect("a lease has its slot");
                    assert_eq!(loaded.digest(), name);
                })
            };
            let threads = [request("sql"), request("chat"), request("sql"), request("chat")];
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!((adapters.slots(), adapters.names().len()), ((1, 1), 2));
            assert!(!adapters.shared.lock().slots.is_awaited());
        },
        ORDERS,
    );
}
