use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const PAGE: usize = 32;

fn origin(name: &str) -> Origin {
    Origin { adapter: Some((name.into(), 1f32.to_bits())), ..Origin::default() }
}

/// Tokens `0..count`, different from `from` on.
fn text(count: usize, from: usize) -> Vec<u32> {
    (0..count).map(|i| if i < from { i as u32 } else { 1000 + i as u32 }).collect()
}

/// Admits a sequence and computes its whole prompt.
fn run(cache: &mut KvCache, origin: Origin, prompt: &[u32]) -> (usize, Table) {
    let mut table = cache.open(origin, prompt, prompt.len() + 1).expect("room");
    let found = table.shared();
    cache.grow(&mut table, prompt.len() + 1).unwrap();
    cache.publish(&mut table, prompt);
    (found, table)
}

#[test]
fn a_prompt_is_found_up_to_its_last_token() {
    let mut cache = KvCache::new(PAGE, 20, 20);
    let prompt = text(3 * PAGE, usize::MAX);
    let (found, table) = run(&mut cache, Origin::default(), &prompt);
    assert_eq!(found, 0);
    let first_pages = table.pages()[..2].to_vec();
    cache.close(table);
    let (found, table) = run(&mut cache, Origin::default(), &prompt);
    assert_eq!(found, 2 * PAGE, "the last token's logits are wanted");
    assert_eq!(table.pages()[..2], first_pages);
    cache.close(table);
    assert_eq!(run(&mut cache, Origin::default(), &text(4 * PAGE, PAGE + 3)).0, PAGE);
    assert_eq!(run(&mut cache, origin("sql"), &prompt).0, 0, "another adapter");
}

#[test]
fn a_long_request_holds_more_than_one_share_of_the_pages() {
    let mut cache = KvCache::new(PAGE, 16, 16);
    let mut shares = |positions| {
        let mut table = cache.open(Origin::default(), &text(PAGE, usize::MAX), positions).expect("room");
        let reserved = cache.shares(&table, 4);
        cache.grow(&mut table, PAGE).unwrap();
        cache.publish(&mut table, &text(PAGE, usize::MAX));
        assert_eq!(cache.shares(&table, 4), reserved, "used pages were reserved before");
        cache.close(table);
        reserved
    };
    assert_eq!([1, 4, 5, 8, 16].map(|pages| shares(pages * PAGE)), [1, 1, 2, 2, 4]);
}

#[test]
fn no_tenant_finds_what_another_sent() {
    let of = |tenant: &str| Origin { tenant: tenant.into(), ..origin("sql") };
    let mut cache = KvCache::new(PAGE, 40, 40);
    let prompt = text(3 * PAGE, usize::MAX);
    let (_, running) = run(&mut cache, of("payroll"), &prompt);
    let (found, mut other) = run(&mut cache, of("support"), &prompt);
    assert_eq!(found, 0, "while it runs");
    cache.follow(&mut other, &prompt);
    assert_ne!(running.pages()[0], other.pages()[0]);
    cache.close(running);
    cache.close(other);
    for (tenant, expected) in [("", 0), ("sales", 0), ("payroll", 2 * PAGE), ("support", 2 * PAGE), ("sales", 2 * PAGE)]
    {
        let (found, table) = run(&mut cache, of(tenant), &prompt);
        assert_eq!(found, expected, "{tenant}");
        cache.close(table);
    }
}

/// A tenant with prompt after prompt evicts its own: what another sent once, and less of, is found long after.
#[test]
fn a_flood_of_prompts_leaves_the_prefixes_of_others() {
    let of = |tenant: &str| Origin { tenant: tenant.into(), ..Origin::default() };
    let mut cache = KvCache::new(PAGE, 20, 20);
    let prompt = text(4 * PAGE + 1, usize::MAX);
    let (_, table) = run(&mut cache, of("quiet"), &prompt);
    cache.close(table);
    for flood in 0..50 {
        let (found, table) = run(&mut cache, of("flood"), &text(3 * PAGE + 1, flood % 3 * PAGE));
        assert!(found <= 3 * PAGE);
        let other: Vec<u32> = (0..5 * PAGE as u32).map(|token| 10_000 * (flood as u32 + 1) + token).collect();
        let (_, second) = run(&mut cache, of("flood"), &other);
        cache.close(table);
        cache.close(second);
    }
    assert_eq!(run(&mut cache, of("quiet"), &prompt).0, 4 * PAGE);
}

#[test]
fn more_pages_than_were_reserved_are_an_error() {
    let mut cache = KvCache::new(PAGE, 4, 4);
    let mut table = cache.open(Origin::default(), &[1], PAGE).unwrap();
    assert_eq!(cache.grow(&mut table, PAGE + 1), Err(OutOfPages));
    cache.audit(&[(table, vec![1])]);
}

#[test]
fn sequences_that_run_together_share_pages() {
    let mut cache = KvCache::new(PAGE, 20, 20);
    let prompt = text(2 * PAGE + 5, usize::MAX);
    let mut late = cache.open(origin("sql"), &prompt, 100).unwrap();
    let (_, early) = run(&mut cache, origin("sql"), &prompt);
    cache.follow(&mut late, &prompt);
    assert_eq!((late.shared(), &late.pages()[..2]), (2 * PAGE, &early.pages()[..2]));
    // Sequences that computed the same prompt concurrently keep one copy.
    let other = text(PAGE + 1, 0);
    let mut tables = [(); 2].map(|()| cache.open(origin("sql"), &other, PAGE + 1).unwrap());
    for table in &mut tables {
        cache.grow(table, PAGE).unwrap();
        cache.publish(table, &other);
    }
    assert_eq!(tables[0].pages(), tables[1].pages());
}

#[test]
fn what_was_idle_longest_goes_first_and_only_from_its_end() {
    let mut cache = KvCache::new(PAGE, 4, 4);
    for from in [0, PAGE] {
        let (_, table) = run(&mut cache, Origin::default(), &text(2 * PAGE, from));
        cache.close(table);
    }
    // Pages of two prefixes, [0 0'] and [1 1']; a sequence of two pages evicts those of the first, the last page first.
    let mut table = cache.open(origin("sql"), &[1], PAGE).unwrap();
    cache.grow(&mut table, 1).unwrap();
    assert_eq!(cache.open(Origin::default(), &text(2 * PAGE + 1, 0), 3 * PAGE).unwrap().shared(), PAGE);
    assert_eq!(cache.find(Parent::Origin(Origin::default()), &text(2 * PAGE + 1, PAGE)).len(), 2);
}

#[test]
fn more_than_there_is_waits() {
    let mut cache = KvCache::new(PAGE, 4, 4);
    let first = cache.open(Origin::default(), &[1], 3 * PAGE).unwrap();
    assert!(cache.open(Origin::default(), &[1], PAGE + 1).is_none());
    cache.close(first);
    assert!(cache.open(Origin::default(), &[1], PAGE + 1).is_some());
}

#[test]
fn without_room_for_idle_pages_nothing_is_shared() {
    let mut cache = KvCache::new(PAGE, 8, 0);
    let prompt = text(2 * PAGE + 1, usize::MAX);
    let (_, table) = run(&mut cache, Origin::default(), &prompt);
    assert_eq!(run(&mut cache, Origin::default(), &prompt).0, 0);
    cache.close(table);
}

impl KvCache {
    /// Invariants that hold between any two calls.
    fn audit(&self, tables: &[(Table, Vec<u32>)]) {
        let live = |(index, _): &(usize, &Node)| !self.vacant.contains(&(*index as u32));
        let nodes = || self.nodes.iter().enumerate().filter(live).map(|(_, node)| node);
        assert_eq!(self.in_use, nodes().filter(|node| node.users > 0).count());
        assert_eq!(self.idle, nodes().filter(|node| node.users == 0).count());
        assert_eq!(self.reserved, tables.iter().map(|(table, _)| table.reserved).sum::<usize>());
        assert!(self.in_use + self.reserved <= self.pages);
        for (name, tenant) in &self.tenants {
            assert_eq!(tenant.nodes, nodes().filter(|node| node.tenant == *name).count());
        }
        assert_eq!(self.tenants.values().map(|tenant| tenant.nodes).sum::<usize>(), self.in_use + self.idle);
        let leaves = nodes().filter(|node| node.users == 0 && node.children == 0).count();
        assert_eq!(self.tenants.values().map(|tenant| tenant.evictable.len()).sum::<usize>(), leaves);
        let own = tables.iter().flat_map(|(table, _)| &table.pages[table.nodes.len()..]);
        let mut all: Vec<u32> = self
            .free
            .iter()
            .map(|Reverse(page)| *page)
            .chain(own.copied())
            .chain(nodes().map(|node| node.page))
            .collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..self.pages as u32), "every page is in one place: {all:?}");
        for (table, _) in tables {
            assert!(table.nodes.iter().zip(&table.pages).all(|(&node, &page)| self.node(node).page == page));
            assert!(table.pages.len() - table.nodes.len() <= table.reserved);
        }
    }
}

#[test]
fn no_page_is_lost_or_held_twice_whatever_comes() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let idle_max = random.random_range(0..12);
        let mut cache = KvCache::new(PAGE, 12, idle_max);
        let mut tables: Vec<(Table, Vec<u32>)> = Vec::new();
        for _ in 0..200 {
            match random.random_range(0..10) {
                0..4 => {
                    let prompt = text(random.random_range(1..5 * PAGE), random.random_range(0..4) * PAGE);
                    let tenant = ["", "a", "b"][random.random_range(0..3)].into();
                    let adapter = if random.random() { origin("sql") } else { Origin::default() };
                    let adapter = Origin { tenant, ..adapter };
                    let positions = prompt.len() + random.random_range(0..2 * PAGE);
                    if let Some(table) = cache.open(adapter, &prompt, positions) {
                        tables.push((table, prompt));
                    }
                }
                4..6 if !tables.is_empty() => {
                    let (table, _) = tables.swap_remove(random.random_range(0..tables.len()));
                    cache.close(table);
                    assert!(cache.idle <= idle_max, "{} idle pages of {idle_max}", cache.idle);
                }
                _ if !tables.is_empty() => {
                    let index = random.random_range(0..tables.len());
                    let (table, prompt) = &mut tables[index];
                    cache.follow(table, prompt);
                    let computed = random.random_range(table.shared()..=prompt.len());
                    cache.grow(table, computed).unwrap();
                    cache.publish(table, &prompt[..computed]);
                }
                _ => {}
            }
            cache.audit(&tables);
        }
        for (table, _) in tables {
            cache.close(table);
        }
        cache.audit(&[]);
    }
}
