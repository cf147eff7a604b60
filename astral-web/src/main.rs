//! `astral-web`: see `astral-web --help`.

use std::process::ExitCode;

use astral_web::{Config, Task, Web, dev_certs, logging, signals};

fn main() -> ExitCode {
    let done = Task::load().and_then(|task| match task {
        Task::Serve(config) => serve(&config),
        Task::DevCerts(wanted) => dev_certs::make(&wanted),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("astral-web: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config) -> anyhow::Result<()> {
    logging::init(config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = signals::shutdown()?;
        Web::load(config).await?.run(shutdown).await
    })
}
