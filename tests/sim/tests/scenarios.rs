//! What CI runs of the simulator: the binary, as a developer runs it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the binary on a scenario; gives what it printed and the report.
fn sim(scenario: &str, flags: &[&str]) -> (Output, Value) {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .arg(scenario)
        .args(flags)
        // Large pages where there are any: a gigabyte of small tables, read at random.
        .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        .arg("--report")
        .arg(dir.path())
        .current_dir(root)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    let json = std::fs::read(dir.path().join(format!("{scenario}.json"))).unwrap();
    let html = dir.path().join(format!("{scenario}.html"));
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<polyline") && html.ends_with("</html>\n"));
    (output, serde_json::from_slice(&json).unwrap())
}

fn holds(scenario: &str, flags: &[&str]) {
    let (output, report) = sim(scenario, flags);
    assert!(output.status.success(), "{}", report["violations"]);
}

#[test]
fn same_seed_gives_the_same_digest_in_two_processes() {
    let digest = |seed: &str| {
        let (_, report) = sim("cascade", &["--nodes", "60", "--seed", seed]);
        report["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(digest("5"), digest("5"));
    assert_ne!(digest("5"), digest("6"));
}

#[test]
fn every_scenario_can_be_read_and_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let scenarios: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(scenarios.len() >= 16, "{scenarios:?}");
    for path in scenarios {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (_, report) = sim(name, &["--nodes", "20"]);
        assert_eq!(report["scenario"], name);
        // Whatever becomes of so few: these rules hold in any network.
        for rule in ["loop", "budget", "expiry", "codec", "doubled"] {
            assert!(
                report["broken"].get(rule).is_none(),
                "{name}: {}",
                report["violations"]
            );
        }
    }
}

#[test]
fn ten_thousand_nodes_keep_every_rule_while_a_fifth_leaves() {
    holds("ten_thousand", &[]);
}
