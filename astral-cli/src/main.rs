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
mod home;
mod publish;
mod signals;
mod suggest;
mod tables;
mod term;
mod watch;

use clap::Parser as _;

#[tokio::main]
async fn main() {
    let result = commands::run(args::Args::parse()).await;
    // A read of standard input that still waits cannot be called off, and the
    // runtime would wait for it: so the program ends here.
    std::process::exit(failure::report(result));
}
