//! `GET /metrics`.

use super::*;

#[tokio::test]
async fn metrics_tell_what_the_node_does() {
    let (node, _other) = pair().await;
    let reply = node.get("/metrics").await;
    assert_eq!(reply.status, 200);
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = reply.text();
    for line in [
        "astral_streams{state=\"waiting\"} 2",
        "astral_peers 1",
        "astral_children 0",
        "# TYPE astral_upload_bytes_total counter",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    let sent = text
        .lines()
        .find_map(|line| line.strip_prefix("astral_upload_bytes_total "));
    let sent: u64 = sent.expect("a counter").parse().unwrap();
    assert!(sent > 0, "a handshake was sent");
}

/// Name, type and words of each metric, by the text that is scraped.
fn scraped(text: &str) -> Vec<(String, String, String)> {
    let words_of = |name: &str| {
        let start = format!("# HELP {name} ");
        let words = text.lines().find_map(|line| line.strip_prefix(&start));
        let words = words.unwrap_or_else(|| panic!("{name} has no words"));
        words.trim_end_matches('.').to_owned()
    };
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut all: Vec<_> = types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            (name.to_owned(), kind.to_owned(), words_of(name))
        })
        .collect();
    all.sort();
    all
}

/// The same by `METRICS.md`, whose rows are `| name | type | labels | words |`.
fn documented() -> Vec<(String, String, String)> {
    let text = include_str!("../../../METRICS.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut all: Vec<_> = rows
        .map(|row| {
            let cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let cells: Vec<String> = cells.map(str::to_owned).collect();
            (cells[0].clone(), cells[1].clone(), cells[3].clone())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn every_metric_is_documented_as_it_is_and_no_other() {
    let (node, other) = pair().await;
    // A stream that is taken in, so that every family has a series.
    let tickets = "/api/v1/streams/other/tickets";
    let reply = node.ask("POST", tickets, &node.json(), "{}").await;
    assert_eq!(reply.status, 201);
    let open = "Accept: application/openmetrics-text\r\n";
    for reply in [
        node.ask("GET", "/metrics", open, "").await,
        other.ask("GET", "/metrics", open, "").await,
    ] {
        assert_eq!(documented(), scraped(reply.text()));
    }
}
