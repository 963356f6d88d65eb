//! Fault injection for tests: a panic in a task of a running process, to show the recovery from it.
//!
//! Off unless the environment variable `SLM_TEST_PANIC` names the task; then the process's next SIGUSR2 causes the
//! panic. This adds no power: the ability to set a process's environment and to send it signals includes ending it.

use std::{env, future::pending};

/// Environment variable with the name of the task.
const VARIABLE: &str = "SLM_TEST_PANIC";

/// Never returns. Panics at the first SIGUSR2, if `SLM_TEST_PANIC` is `task`.
pub async fn panic_when_asked(task: &str) {
    if env::var(VARIABLE).is_ok_and(|named| named == task) {
        signalled().await;
        #[allow(clippy::panic)] // This is what it is for.
        {
            panic!("{VARIABLE}: {task} was told to panic")
        }
    }
    pending().await
}

/// Runs `work` as the task of that name, which a signal can make panic.
pub async fn panics_when_asked<T>(task: &str, work: impl Future<Output = T>) -> T {
    tokio::select! {
        output = work => output,
        output = async { panic_when_asked(task).await; pending().await } => output,
    }
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::user_defined2()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // No signal handler can be installed: no panic can be requested.
        Err(_) => pending().await,
    }
}

#[cfg(not(unix))]
async fn signalled() {
    pending().await
}
