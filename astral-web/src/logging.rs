//! The log: on standard error, as text or JSON lines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Starts logging. `RUST_LOG`, if set, decides what is logged; else the flags.
pub fn init(config: &Config) {
    let wanted = match config.verbosity {
        ..0 => "warn",
        0 => "warn,astral_web=info",
        1 => "warn,astral_web=debug",
        2.. => "debug,astral_web=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(wanted));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _already_logging = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
