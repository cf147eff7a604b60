//! `astral`: the command line of an Astral node.
//!
//! It finds the node on this machine through its ready file, speaks the node's
//! HTTP JSON API, and prints tables or the API's own JSON. It decides nothing
//! about the network: that is the node's.

mod args;
mod client;
mod commands;
mod demo;
mod events;
mod failure;
#[cfg(test)]
mod fake;
mod format;
mod glance;
mod health;
mod home;
mod manual;
mod open;
mod programs;
mod publish;
mod service;
mod settings;
mod signals;
mod suggest;
mod tables;
mod term;
mod top;
mod watch;

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    manual::complete();
    let args = args::Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(commands::run(args));
    // A read of standard input that still waits cannot be called off, and the
    // runtime would wait for it: so the program ends here.
    std::process::exit(failure::report(result));
}
