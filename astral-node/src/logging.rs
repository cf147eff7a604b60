//! The log: as text or JSON lines on standard error, or in the data folder's file for a
//! node that runs in the background.

mod file;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Config, LogFormat};
use crate::daemon;
use file::LogFile;

/// Sets what is logged; the first log of this process keeps it.
type Reload = Box<dyn Fn(EnvFilter) + Send + Sync>;
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Starts logging; does nothing if this process logs already (tests run many nodes in one).
///
/// `RUST_LOG`, if set, decides what is logged; else the verbosity.
///
/// # Errors
/// The log file of a node in the background cannot be opened.
pub fn init(config: &Config) -> std::io::Result<()> {
    if daemon::is_detached() {
        let file = LogFile::open(daemon::log_path(&config.data_dir))?;
        log_to(config, file, false);
    } else {
        log_to(config, std::io::stderr, std::io::stderr().is_terminal());
    }
    Ok(())
}

fn log_to<W>(config: &Config, writer: W, in_colour: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(directives(config.verbosity)));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // Said on standard error, which may be on the same full disk: that would panic.
        .log_internal_errors(false)
        .with_ansi(in_colour);
    match config.log_format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            let reload: Reload = Box::new(move |filter| drop(handle.reload(filter)));
            start(log.try_init().is_ok(), reload);
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            let reload: Reload = Box::new(move |filter| drop(handle.reload(filter)));
            start(log.try_init().is_ok(), reload);
        }
    }
}

fn start(is_first: bool, reload: Reload) {
    // A variable that was unset when logging began does not begin to count later.
    if is_first && std::env::var_os(EnvFilter::DEFAULT_ENV).is_none() {
        let _already_logging = RELOAD.set(reload);
    }
}

/// Changes what is logged from now on, unless `RUST_LOG` decides it.
pub(crate) fn set_verbosity(verbosity: i8) {
    if let Some(reload) = RELOAD.get() {
        reload(EnvFilter::new(directives(verbosity)));
    }
}

/// Our own crates by verbosity; what we build on only when all is asked for. The parser
/// of MP4 boxes warns of each box that it skips, which is nobody's concern.
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
        init(&config).unwrap();
        init(&config).unwrap();
    }
}
