//! A way for tests to make a task of a running process panic: what recovers from a panic cannot be shown without one.
//!
//! Off unless the environment variable `SLM_TEST_PANIC` names the task. Then the process's next SIGUSR2 makes it panic.
//! Whoever can set a process's environment and send it signals can end it anyway.

use std::{env, future::pending};

/// Names the task that is to panic.
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

/// Runs `work` as the task of that name, inside which the panic happens.
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
        // The system's limit of signal handlers: there is no way to be told.
        Err(_) => pending().await,
    }
}

#[cfg(not(unix))]
async fn signalled() {
    pending().await
}
