//! `astral-node`: see `astral-node --help`.

use std::process::ExitCode;

use astral_node::{Config, Node, daemon, logging, signals};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("astral-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let config = Config::load()?;
    if config.daemonize && !daemon::is_detached() {
        return daemon::start(&config);
    }
    daemon::detach();
    logging::init(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let shutdown = signals::shutdown()?;
        Node::load(config).await?.run(shutdown).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    done
}
