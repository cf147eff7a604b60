//! The figures of a run, for people and for programs.

use serde::Serialize;

/// One sender with so many children, measured once.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Processor seconds of the sender per 10⁹ payload bytes delivered.
    pub cpu_s_per_gb: f64,
    /// Payload that arrived, in Mbit/s and child.
    pub mbit_per_child: f64,
    /// Frame made → whole at a child, in milliseconds.
    pub p50_ms: f64,
    /// The same, of the slowest hundredth.
    pub p99_ms: f64,
    /// The sender's resident memory before anybody came, in KiB.
    pub memory_before_kib: f64,
    /// What it had more at the end of the window, per child, in KiB.
    pub memory_per_child_kib: f64,
    /// What it had more some seconds after the last had left, in all, in KiB.
    pub memory_after_kib: f64,
}

impl Sample {
    /// The median of each figure.
    pub fn median(samples: &[Self]) -> Self {
        let of =
            |figure: fn(&Self) -> f64| super::meter::median(samples.iter().map(figure).collect());
        Self {
            cpu_s_per_gb: of(|sample| sample.cpu_s_per_gb),
            mbit_per_child: of(|sample| sample.mbit_per_child),
            p50_ms: of(|sample| sample.p50_ms),
            p99_ms: of(|sample| sample.p99_ms),
            memory_before_kib: of(|sample| sample.memory_before_kib),
            memory_per_child_kib: of(|sample| sample.memory_per_child_kib),
            memory_after_kib: of(|sample| sample.memory_after_kib),
        }
    }
}

/// A node beside bare quinn.
#[derive(Clone, Debug, Serialize)]
pub struct FanOut {
    /// How many children each had.
    pub children: usize,
    /// The node: median.
    pub node: Sample,
    /// Bare quinn: median.
    pub bare: Sample,
    /// The node's processor time over bare quinn's: median of the repeats' ratios.
    pub cpu_ratio: f64,
}

/// What a relay in between adds.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// Children of the relay.
    pub children: usize,
    /// The same frame at a child of the relay and at one of the publisher, in milliseconds.
    pub p50_ms: f64,
    /// The same, of the slowest hundredth.
    pub p99_ms: f64,
}

/// Everything that a run gives.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Length of each window in seconds.
    pub window_s: u64,
    /// Times that everything was measured.
    pub repeats: usize,
    /// Fan-out, by children.
    pub fan_out: Vec<FanOut>,
    /// Relays, by children.
    pub hops: Vec<Hop>,
}

impl Report {
    /// Prints the tables.
    pub fn print(&self) {
        println!(
            "\n4 Mbit/s, 30 frames/s, groups of 2 s; median of {} × {} s, node and bare quinn in turn\n",
            self.repeats, self.window_s
        );
        println!(
            "| children | CPU s/GB: node | bare quinn | ratio | delay p50 / p99 ms: node | bare quinn | KiB per child: node | bare quinn | KiB more after all left: node | bare quinn |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for row in &self.fan_out {
            let (node, bare) = (row.node, row.bare);
            println!(
                "| {} | {:.2} | {:.2} | {:.2} | {:.1} / {:.1} | {:.1} / {:.1} | {:.0} | {:.0} | {:.0} | {:.0} |",
                row.children,
                node.cpu_s_per_gb,
                bare.cpu_s_per_gb,
                row.cpu_ratio,
                node.p50_ms,
                node.p99_ms,
                bare.p50_ms,
                bare.p99_ms,
                node.memory_per_child_kib,
                bare.memory_per_child_kib,
                node.memory_after_kib,
                bare.memory_after_kib,
            );
        }
        println!("\n| children of the relay | added delay p50 / p99 ms |");
        println!("|---|---|");
        for hop in &self.hops {
            println!(
                "| {} | {:.2} / {:.2} |",
                hop.children, hop.p50_ms, hop.p99_ms
            );
        }
    }
}
