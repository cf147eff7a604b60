//! What an admin reads in the log.

use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::{Launch, Node};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use serde_json::Value;

/// Waits for a line with this message that has these fields.
async fn line(node: &Node, message: &str, fields: &[&str]) -> Value {
    until(message, s(20), async || {
        let log = node.log();
        let lines = log.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"))
        });
        let mut lines = lines.filter(|line| line["message"] == message);
        let found = lines.find(|line| fields.iter().all(|field| line.get(*field).is_some()));
        found.ok_or_else(|| format!("no `{message}` with {fields:?} in\n{log}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_connections_streams_and_their_ends_are_a_sentence_each_with_the_reason() {
    let _turn = turn::shared().await;
    let launch = Launch::new("node").option("--log-format", "json");
    let node = launch.start().await;
    for (what, address) in [
        ("http", &node.ready.http),
        ("quic", &node.ready.quic),
        ("rtmp", node.ready.rtmp.as_ref().expect("RTMP")),
    ] {
        let listening = line(&node, &format!("listening: {what}"), &["address"]).await;
        assert_eq!(listening["address"], **address);
        assert_eq!(listening["level"], "INFO");
    }

    let (stream, ingest) = node.api.publish("In the log").await;
    let published = line(&node, "stream is published", &["stream", "name"]).await;
    assert_eq!(published["stream"], stream.id.to_string());
    let clip = Clip::small(2);
    Encoder::rtmp(clip, &ingest).finish(clip).await;
    line(&node, "RTMP encoder connected", &["from"]).await;
    line(&node, "RTMP connection ended", &["from", "reason"]).await;

    let mut viewer = Launch::new("viewer").peer(&node).start().await;
    let joined = line(&node, "peer connected", &["node"]).await;
    assert_eq!(joined["node"], viewer.id().to_string());
    until("the stream", s(15), async || {
        viewer.api.try_stream("in-the-log").await
    })
    .await;
    assert_eq!(viewer.api.watch("in-the-log").await.status, 201);
    line(&node, "ticket promised", &["ticket", "child"]).await;
    viewer.kill();
    line(&node, "ticket ended", &["ticket", "child", "reason"]).await;
    line(&node, "connection closed", &["reason"]).await;

    let answer = node.api.delete("/streams/in-the-log").await;
    assert_eq!(answer.status, 204, "{answer}");
    line(
        &node,
        "stream is over: its owner has ended it",
        &["stream", "name"],
    )
    .await;
    let log = node.log();
    check(!log.contains(&ingest.stream_key), log).expect("the encoder's secret is not logged");
}
