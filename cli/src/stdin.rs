//! Shutdown at the end of standard input, and at signals.
//!
//! A parent that ends, even by `kill -9`, closes its end of a child's standard input.

use std::io::Read as _;

use tokio_util::sync::CancellationToken;

use slm_console::exit::Failure;

/// Cancels `shutdown` when standard input ends. The thread that waits for it ends with the process.
pub fn cancel_at_end(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 4096];
        while matches!(stdin.read(&mut ignored), Ok(read) if read > 0) {}
        shutdown.cancel();
    });
}

/// Cancels `shutdown` at SIGTERM or SIGINT.
///
/// # Errors
/// The system registers no handler for them.
pub fn cancel_at_signal(shutdown: CancellationToken) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
