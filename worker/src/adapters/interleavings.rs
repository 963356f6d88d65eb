//! Loads, unloads and requests of one name in many of the orders in which they can come: `make loom`.

use shuttle::{
    check_random,
    thread::{self, JoinHandle},
};

use super::{
    tests::{info, packed},
    *,
};

/// Orders that are tried, each from a seed of its own. Every lock that is taken is a point where another thread may go on.
const ORDERS: usize = 20_000;

fn version(digest: &str) -> LoadedAdapter {
    let mut loaded = packed();
    match &mut loaded {
        LoadedAdapter::Packed(packed) => digest.clone_into(&mut packed.digest),
        LoadedAdapter::Banked(banked) => digest.clone_into(&mut banked.digest),
    }
    loaded
}

/// A request: what it holds is in its slot from its first look to its last.
fn request(adapters: &Adapters) -> JoinHandle<()> {
    let adapters = adapters.clone();
    thread::spawn(move || {
        for _ in 0..2 {
            let Some(lease) = adapters.lease("sql") else { continue };
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
        match adapters.publish_loaded(ticket.load(), info("sql", digest), version(digest)) {
            Ok(lease) => assert_eq!(lease.info.digest, digest),
            Err(PublishError::Superseded { .. } | PublishError::Retiring { .. }) => {}
            Err(error) => unreachable!("{error}"),
        }
    })
}

#[test]
fn a_lease_keeps_its_slot_and_every_slot_comes_back() {
    check_random(
        || {
            let adapters = Adapters::new(1, 2);
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
            let mut free = state.free.clone();
            free.sort_unstable();
            assert_eq!((free, state.names.len(), state.loads.len()), (vec![0, 1, 2], 0, 0));
            drop(state);
            assert!((0..3).all(|slot| adapters.table().get(slot).is_none()));
        },
        ORDERS,
    );
}
