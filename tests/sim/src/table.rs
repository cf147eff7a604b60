//! A report as a table on the terminal.

use std::time::Duration;

use astral_proto::sim::{Report, Spread};

/// Prints what came of a run.
pub fn print(report: &Report, took: Duration, memory: Option<u64>) {
    println!(
        "{} nodes ({} joined), {} s simulated in {:.1} s, {:.1} million events, {} MiB, seed {}",
        report.nodes,
        report.joined,
        report.duration_s,
        took.as_secs_f64(),
        report.events as f64 / 1e6,
        memory.unwrap_or(0) >> 20,
        report.seed
    );
    println!("digest {}", report.digest);
    spread("parent promised", &report.join);
    spread("first video", &report.first_video);
    spread("delay from source", &report.delay);
    spread("gap", &report.gap);
    println!(
        "  depth                mean {:.1}  max {}",
        report.depth_mean, report.depth_max
    );
    println!("  on time              {:.5}", report.on_time);
    println!("  frames lost          {}", report.frames_lost);
    println!("  served at the end    {:.5}", report.served);
    println!("  offload              {:.5}", report.offload);
    println!("  publisher's copies   {:.1}", report.publisher_copies);
    println!(
        "  control              {:.0} bit/s per node, {:.2} % of bytes",
        report.control_bps,
        report.control * 100.0
    );
    let mut said: Vec<_> = report.said_bps.iter().collect();
    said.sort_by(|a, b| b.1.total_cmp(a.1));
    for (what, bps) in said.iter().filter(|(_, bps)| **bps >= 1.0) {
        println!("    {what:<18} {bps:>8.0} bit/s");
    }
    println!("  video twice          {:.3} %", report.twice * 100.0);
    println!(
        "  changes of parent    {:.2} per node and minute",
        report.switches
    );
    println!("  connections          {:.1} per node", report.connections);
    for worst in report.worst.iter().take(6) {
        println!(
            "  node {:<6} {:>7.2} s of video too late, there from {:.2} to {:.2} s",
            worst.node, worst.late_s, worst.came_s, worst.left_s
        );
    }
    for judged in &report.judged {
        let word = if judged.met { "met   " } else { "FAILED" };
        println!(
            "  {word} {} {}: {:.5}",
            judged.figure, judged.must, judged.is
        );
    }
    for (check, count) in &report.broken {
        println!("  BROKEN {check}: {count} times");
    }
    for violation in report.violations.iter().take(12) {
        let (at_s, node) = (violation.at_s, violation.node);
        println!(
            "    {at_s:.3} s node {node}: {}: {}",
            violation.check, violation.what
        );
    }
}

fn spread(name: &str, spread: &Spread) {
    println!(
        "  {name:<20} p50 {:>8} ms  p90 {:>8} ms  p99 {:>8} ms  max {:>8} ms  ({})",
        spread.p50_ms, spread.p90_ms, spread.p99_ms, spread.max_ms, spread.count
    );
}
