use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Slots with versions 1 to `count` in them, used in that order.
fn filled(named_max: usize, count: u64) -> Slots {
    let mut slots = Slots::new(named_max, 2);
    for version in 1..=count {
        assert!(matches!(slots.claim(version, true, false, None), Claim::Fill { .. }), "{version}");
        slots.filled(version, false);
    }
    slots
}

fn ticket(claim: Claim) -> Ticket {
    match claim {
        Claim::Wait(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_least_recently_used_version_leaves() {
    let mut slots = filled(3, 3);
    assert!(matches!(slots.claim(1, true, false, None), Claim::Leased(_)));
    slots.release(1);
    assert!(matches!(slots.claim(4, true, false, None), Claim::Fill { .. }));
    assert_eq!([1, 2, 3].map(|version| slots.holds(version)), [true, false, true]);
    assert!(!slots.holds(4), "its slot is not filled yet");
    assert_eq!(slots.claim(4, true, false, None), Claim::Filled);
    slots.filled(4, true);
    assert!(slots.holds(4));
}

#[test]
fn versions_in_use_and_pinned_ones_stay() {
    let mut slots = Slots::new(2, 0);
    assert!(matches!(slots.claim(1, true, true, None), Claim::Fill { .. }));
    slots.filled(1, false);
    assert!(matches!(slots.claim(2, true, false, None), Claim::Fill { .. }));
    slots.filled(2, true);
    let waiting = ticket(slots.claim(3, true, false, None));
    slots.release(2);
    assert!(matches!(slots.claim(3, true, false, Some(waiting)), Claim::Fill { .. }));
    assert_eq!([1, 2].map(|version| slots.holds(version)), [true, false]);
}

#[test]
fn a_request_that_waits_has_its_turn_although_others_overlap() {
    let mut slots = filled(1, 1);
    assert!(matches!(slots.claim(1, true, false, None), Claim::Leased(_)));
    let cold = ticket(slots.claim(2, true, false, None));
    let hot = ticket(slots.claim(1, true, false, None));
    assert_eq!(slots.claim(1, true, false, Some(hot)), Claim::Wait(hot), "its slot is closed");
    assert_eq!(slots.claim(2, true, false, Some(cold)), Claim::Wait(cold));
    slots.release(1);
    assert_eq!(slots.claim(1, true, false, Some(hot)), Claim::Wait(hot), "first come, first served");
    assert!(matches!(slots.claim(2, true, false, Some(cold)), Claim::Fill { .. }));
    slots.filled(2, true);
    assert_eq!(slots.claim(1, true, false, Some(hot)), Claim::Wait(hot));
    slots.release(2);
    assert!(matches!(slots.claim(1, true, false, Some(hot)), Claim::Fill { .. }));
    assert!(!slots.is_awaited());
}

#[test]
fn a_closed_slot_opens_again_when_the_request_leaves() {
    let mut slots = filled(1, 1);
    assert!(matches!(slots.claim(1, true, false, None), Claim::Leased(_)));
    let cold = ticket(slots.claim(2, true, false, None));
    let hot = ticket(slots.claim(1, true, false, None));
    slots.leave(Some(cold));
    assert!(matches!(slots.claim(1, true, false, Some(hot)), Claim::Leased(_)));
}

#[test]
fn pinned_versions_that_fill_all_slots_are_told() {
    let mut slots = Slots::new(1, 1);
    assert!(matches!(slots.claim(1, true, true, None), Claim::Fill { .. }));
    slots.filled(1, false);
    assert_eq!(slots.claim(2, true, false, None), Claim::AllPinned);
    assert!(!slots.is_awaited());
}

#[test]
fn replaced_versions_have_slots_besides() {
    let mut slots = filled(1, 1);
    assert!(matches!(slots.claim(1, true, false, None), Claim::Leased(_)));
    let slot = slots.reserve(2, Some(1)).unwrap();
    assert_eq!(slots.retire(1), None, "a request uses it");
    assert!(slots.name(2, false));
    slots.filled(2, false);
    assert!(slots.holds(1) && slots.holds(2));
    let freed = slots.release(1).unwrap();
    assert_ne!(freed, slot);
    assert!(!slots.holds(1));
    // A request that took the replaced version before, and comes for its slot now.
    assert!(matches!(slots.claim(1, false, false, None), Claim::Fill { .. }));
    slots.filled(1, true);
    assert!(slots.holds(2), "the version with the name keeps its slot");
}

#[test]
fn a_version_that_is_loaded_takes_no_slot_from_another() {
    let mut slots = filled(1, 1);
    assert_eq!(slots.reserve(2, None), None);
    let mut room = Slots::new(1, 1);
    assert!(room.reserve(1, None).is_some() && room.reserve(2, None).is_some(), "both are being loaded");
    assert!(room.name(1, false));
    assert!(!room.name(2, false), "there is one slot for names");
    assert!(room.give_up(2).is_some());
    assert_eq!(room.free().len(), 1);
}

/// What can happen to slots.
#[derive(Clone, Copy, Debug)]
enum Event {
    Claim(u64),
    Fill(u64),
    GiveUp(u64),
    Release(u64),
    Retire(u64),
    Leave(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let version = 0..8_u64;
    prop_oneof![
        4 => version.clone().prop_map(Event::Claim),
        3 => version.clone().prop_map(Event::Fill),
        1 => version.clone().prop_map(Event::GiveUp),
        3 => version.clone().prop_map(Event::Release),
        1 => version.prop_map(Event::Retire),
        1 => (0..4_usize).prop_map(Event::Leave),
    ]
}

proptest! {
    /// No two versions share a slot, no slot is lost, no lease loses its slot, names keep to their bound, and nobody waits for ever.
    #[test]
    fn slots_are_neither_shared_nor_lost(events in prop::collection::vec(event(), 0..200), named_max in 1..4_usize) {
        let retiring_max = 8;
        let mut slots = Slots::new(named_max, retiring_max);
        let mut retired: Vec<u64> = Vec::new();
        let mut leases: HashMap<u64, usize> = HashMap::new();
        let mut waiting: Vec<(u64, Ticket)> = Vec::new();
        for event in events {
            match event {
                Event::Claim(version) => {
                    let position = waiting.iter().position(|(wanted, _)| *wanted == version);
                    let ticket = position.map(|position| waiting[position].1);
                    match slots.claim(version, !retired.contains(&version), false, ticket) {
                        Claim::Leased(_) => *leases.entry(version).or_default() += 1,
                        Claim::Wait(ticket) if position.is_none() => waiting.push((version, ticket)),
                        Claim::Wait(_) => continue,
                        Claim::Fill { .. } | Claim::Filled | Claim::AllPinned => {}
                    }
                    if let Some(position) = position {
                        waiting.remove(position);
                    }
                }
                Event::Fill(version) if slots.held.get(&version).is_some_and(|held| held.filling) => {
                    slots.filled(version, true);
                    *leases.entry(version).or_default() += 1;
                }
                Event::GiveUp(version) if slots.held.get(&version).is_some_and(|held| held.filling) => {
                    slots.give_up(version);
                }
                Event::Release(version) if leases.get(&version).is_some_and(|leases| *leases > 0) => {
                    *leases.entry(version).or_default() -= 1;
                    slots.release(version);
                }
                Event::Retire(version) => {
                    slots.retire(version);
                    retired.push(version);
                }
                Event::Leave(index) if index < waiting.len() => {
                    let (_, ticket) = waiting.remove(index);
                    slots.leave(Some(ticket));
                }
                Event::Fill(_) | Event::GiveUp(_) | Event::Release(_) | Event::Leave(_) => {}
            }
            let mut all: Vec<usize> = slots.held.values().map(|held| held.slot).chain(slots.free.clone()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..named_max + retiring_max).collect::<Vec<_>>());
            prop_assert!(slots.named() <= named_max);
            prop_assert_eq!(slots.queue.len(), waiting.len());
            for (version, count) in leases.iter().filter(|(_, count)| **count > 0) {
                prop_assert_eq!(slots.leases(*version), *count);
            }
        }
        // Everybody comes to an end, and who waits comes next, in order.
        for version in 0..8 {
            if slots.held.get(&version).is_some_and(|held| held.filling) {
                slots.filled(version, false);
            }
            for _ in 0..leases.remove(&version).unwrap_or_default() {
                slots.release(version);
            }
        }
        for (version, ticket) in waiting {
            match slots.claim(version, !retired.contains(&version), false, Some(ticket)) {
                Claim::Leased(_) => {}
                Claim::Fill { .. } => {
                    slots.filled(version, true);
                }
                other => prop_assert!(false, "{:?} for {}", other, version),
            }
            slots.release(version);
        }
        prop_assert!(!slots.is_awaited());
    }
}
