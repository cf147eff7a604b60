//! What a process costs, as the kernel counts it, and how late frames come.

use std::fs;
use std::time::Duration;

/// Processor time that a process has used, in all its threads.
///
/// The scheduler's own count in nanoseconds: `stat` counts in ticks of 10 ms, of which
/// one child needs less than one in a second.
pub fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let used = tasks.flatten().filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// Resident memory of a process, in bytes.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("VmRSS in kB") * 1024
}

/// The value below which this share of them lies, in milliseconds; of microseconds.
pub fn percentile(sorted_us: &[u64], share: f64) -> f64 {
    let Some(last) = sorted_us.len().checked_sub(1) else {
        return f64::NAN;
    };
    sorted_us[(last as f64 * share).round() as usize] as f64 / 1_000.0
}

/// The middle one of several.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
