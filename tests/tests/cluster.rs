//! The swarm on a real cluster: `make e2e` installs it there and runs this.

mod cluster {
    mod answers;
    mod artifacts;
    mod deletions;
    mod devices;
    mod external;
    mod objects;
    mod people;
    mod placement;
    mod rights;
    mod second;
    mod swaps;
}
