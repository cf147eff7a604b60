//! A node whose database is spoilt.

use std::fs;

use astral_tests::process::Launch;
use astral_tests::turn;

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_database_is_left_as_it_is_and_named() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    node.api.publish("Kept").await;
    node.kill();
    let path = node.data_dir().join("node.redb");
    let whole = fs::read(&path).expect("a database");
    let mut spoilt = whole.clone();
    spoilt[..64].fill(0x5a);
    fs::write(&path, &spoilt).expect("it is ours");
    let output = node
        .launch()
        .command()
        .output()
        .expect("astral-node starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("node.redb") && words.contains("left as it is"),
        "{words}"
    );
    assert!(
        fs::read(&path).expect("a file") == spoilt,
        "not a byte is touched"
    );

    fs::write(&path, &whole).expect("the backup is put back");
    let node = node.restart().await;
    assert_eq!(node.api.stream("kept").await.name, "Kept");
}
