//! Logs on standard error: text on a terminal, JSON for machines.

use std::io::IsTerminal as _;

use slm_local::LOG_FORMAT_VARIABLE;
use tracing_subscriber::EnvFilter;

/// Starts logging at `RUST_LOG`, by default `warn`. Only a `service` writes JSON.
pub fn init(service: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let terminal = std::io::stderr().is_terminal();
    let json = match std::env::var(LOG_FORMAT_VARIABLE).as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => service && !terminal,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only when logging was started already, which is as good.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(terminal).compact().try_init() };
}
