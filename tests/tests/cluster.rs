//! The swarm on a real cluster: `make e2e` installs it there and runs this.

mod cluster {
    mod answers;
    mod artifacts;
    mod devices;
    mod faults;
    mod rights;
    mod rollouts;
    mod swaps;
}
