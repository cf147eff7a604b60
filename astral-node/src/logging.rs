//! The log: on standard error, as text or JSON lines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Starts logging; does nothing if this process logs already (tests run many nodes in one).
///
/// `RUST_LOG`, if set, decides what is logged; else the verbosity.
pub fn init(config: &Config) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(directives(config.verbosity)));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _already_logging = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Our own crates by verbosity; what we build on only when all is asked for. The MP4
/// library warns of each box that it does not know, of which encoders write many.
fn directives(verbosity: i8) -> &'static str {
    match verbosity {
        ..0 => "warn,mp4_atom=error",
        0 => "warn,mp4_atom=error,astral_node=info,astral_proto=info,astral_media=info",
        1 => "warn,mp4_atom=error,astral_node=debug,astral_proto=debug,astral_media=debug",
        2.. => "debug,astral_node=trace,astral_proto=trace,astral_media=trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verbosity_is_a_valid_filter() {
        for verbosity in -1..=3 {
            EnvFilter::try_new(directives(verbosity)).unwrap();
        }
    }

    #[test]
    fn starting_the_log_twice_is_harmless() {
        let config = Config::default_in("/d");
        init(&config);
        init(&config);
    }
}
