//! `GET /metrics`.

use super::*;

#[tokio::test]
async fn metrics_tell_what_the_node_does() {
    let (node, _other) = pair().await;
    let reply = node.get("/metrics").await;
    assert_eq!(reply.status, 200);
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = reply.text();
    for line in [
        "astral_streams{state=\"waiting\"} 2",
        "astral_peers 1",
        "astral_children 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    let sent = text
        .lines()
        .find_map(|line| line.strip_prefix("astral_upload_bytes_total "));
    let sent: u64 = sent.expect("a counter").parse().unwrap();
    assert!(sent > 0, "a handshake was sent");
    for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} has no words"
        );
    }
}
