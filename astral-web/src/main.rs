//! `astral-web`: see `astral-web --help`.

use std::process::ExitCode;

use astral_web::{Config, Web, logging, signals};
use clap::Parser as _;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("astral-web: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let config = Config::parse();
    logging::init(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = signals::shutdown()?;
        Web::load(&config).await?.run(shutdown).await
    })
}
