//! `sim`: runs a scenario of the simulator, and writes a report of it.
//!
//! ```text
//! sim SCENARIO|FILE [--nodes N] [--seed S] [--report DIR]
//! ```

mod baseline;
mod plot;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use astral_proto::sim::{Report, Scenario, Sim};
use clap::Parser;

/// Runs a scenario of the simulator.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Name of a scenario under tests/scenarios, or a file
    scenario: String,
    /// Nodes that join [default: what the scenario says]
    #[arg(long)]
    nodes: Option<u32>,
    /// Seed of all that is random [default: what the scenario says]
    #[arg(long)]
    seed: Option<u64>,
    /// Write SCENARIO.json and SCENARIO.html there
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Without places near the source for those who give to others
    #[arg(long)]
    no_contributors_first: bool,
    /// Print everything that happens at these nodes
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    trace: Vec<u32>,
    /// Make this report the one that later ones are compared with
    #[arg(long)]
    accept: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let mut scenario = load(&flags.scenario)?;
    scenario.nodes = flags.nodes.unwrap_or(scenario.nodes);
    scenario.seed = flags.seed.unwrap_or(scenario.seed);
    scenario.contributors_first &= !flags.no_contributors_first;
    println!("{}: {}", scenario.name, scenario.about);
    let started = Instant::now();
    let report = Sim::new(scenario, None).trace(flags.trace).run();
    table::print(&report, started.elapsed(), peak_memory());
    if let Some(dir) = &flags.report {
        write(dir, &report)?;
    }
    if flags.accept {
        baseline::accept(&folder(), &report)?;
    } else {
        baseline::compare(&folder(), &report)?;
    }
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the scenarios are: below the working directory, or where this was built.
fn folder() -> PathBuf {
    let here = PathBuf::from("tests/scenarios");
    if here.is_dir() {
        return here;
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn load(name: &str) -> anyhow::Result<Scenario> {
    let path = if name.ends_with(".toml") {
        PathBuf::from(name)
    } else {
        folder().join(format!("{name}.toml"))
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path:?}"))?;
    toml::from_str(&text).with_context(|| format!("reading {path:?}"))
}

fn write(dir: &Path, report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {dir:?}"))?;
    let json = dir.join(format!("{}.json", report.scenario));
    let html = dir.join(format!("{}.html", report.scenario));
    std::fs::write(&json, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("writing {json:?}"))?;
    std::fs::write(&html, plot::page(report)).with_context(|| format!("writing {html:?}"))?;
    println!("report: {} and {}", json.display(), html.display());
    Ok(())
}

/// Most memory that this process had at a time, in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
