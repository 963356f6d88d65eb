//! The swarm on a real cluster while eight callers never pause and things break or are replaced: `make e2e-faults`.

mod cluster_faults {
    mod certificates;
    mod faults;
    mod leaders;
    mod nodes;
    mod panics;
    mod rollouts;
    mod upgrades;
}
