//! The swarm on a real cluster: `make e2e` installs it there and runs this.

mod cluster {
    mod answers;
    mod artifacts;
    mod certificates;
    mod deletions;
    mod devices;
    mod faults;
    mod leaders;
    mod nodes;
    mod people;
    mod rights;
    mod rollouts;
    mod swaps;
    mod upgrades;
}
