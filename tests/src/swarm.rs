//! A real swarm for a test: manifests in a folder of their own, `slm up` over them, clients of both endpoints.

mod calls;
mod command;
mod folder;
mod labels;
mod process;
mod shared;
mod watch;

pub use calls::{Answer, Call, Client, Stream};
pub use command::{clean, output};
pub use folder::{Folder, adapter, base, quickstart_adapter, repository, route};
pub use labels::{Labelled, OUT_OF_SCOPE, labelled};
pub use process::{Ended, Swarm, anonymous_bytes, child_pid, run, slm, slm_binary};
pub use shared::Shared;
pub use watch::{worker_state, worker_state_until};
