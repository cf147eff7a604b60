//! The benchmark runs; what it measures on a busy machine is not looked at.

use std::process::Command;

use astral_tests::turn;
use serde_json::Value;

#[tokio::test]
async fn a_smoke_run_of_the_fan_out_benchmark_gives_every_figure() {
    let _turn = turn::alone().await;
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_bench-fanout"))
            .args(["--quick", "--json"])
            .output()
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic");
    let output = output.expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = report["fan_out"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(row["cpu_ratio"].as_f64() > Some(0.0), "{row}");
        assert!(row["node"]["p99_ms"].as_f64() > Some(0.0), "{row}");
    }
    assert!(report["hops"][0]["p50_ms"].is_number(), "{report}");
}
