//! `GET /events`.

use super::*;

/// Reads events until one satisfies `wanted`; answers its kind and data.
async fn event(socket: &mut TcpStream, wanted: impl Fn(&str, &Value) -> bool) -> (String, Value) {
    let mut all = String::new();
    let found = timeout(UNTIL_MAX, async {
        loop {
            let mut bytes = [0; 4096];
            let count = socket.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the stream ended: {all}");
            all.push_str(&String::from_utf8_lossy(&bytes[..count]));
            let mut kind = String::new();
            for line in all.lines() {
                if let Some(name) = line.strip_prefix("event: ") {
                    kind = name.to_owned();
                }
                let data = line.strip_prefix("data: ");
                let Some(Ok(data)) = data.map(serde_json::from_str::<Value>) else {
                    continue;
                };
                if wanted(&kind, &data) {
                    return (kind, data);
                }
            }
        }
    });
    found.await.expect("the event comes in time")
}

#[tokio::test]
async fn events_begin_with_a_snapshot_and_go_on_with_what_changes() {
    let node = served().await;
    let mut socket = node.open("/api/v1/events").await;
    let (_, snapshot) = event(&mut socket, |kind, data| {
        kind == "stream" && data["change"] == "added"
    })
    .await;
    assert_eq!(snapshot["stream"]["slug"], "my-show");
    assert_eq!(
        snapshot["stream"].get("ingest"),
        None,
        "no secret without the token"
    );

    node.publish("Second").await;
    let (_, added) = event(&mut socket, |kind, data| {
        kind == "stream" && data["stream"]["slug"] == "second"
    })
    .await;
    assert_eq!(added["change"], "added");

    let id = node.handle.stream("second").await.unwrap().id;
    node.handle.set_paused(id, true).await.unwrap();
    event(&mut socket, |kind, data| {
        kind == "stream" && data["change"] == "updated" && data["stream"]["state"] == "paused"
    })
    .await;
    node.handle.unpublish(id).await.unwrap();
    let gone = |kind: &str, data: &Value| {
        kind == "stream" && data["stream"]["slug"] == "second" && data["change"] == "removed"
    };
    event(&mut socket, gone).await;
}

#[tokio::test]
async fn events_end_when_the_node_stops() {
    let node = served().await;
    let mut socket = node.open("/api/v1/events").await;
    node.stop.cancel();
    let mut rest = Vec::new();
    timeout(UNTIL_MAX, socket.read_to_end(&mut rest))
        .await
        .expect("it ends")
        .unwrap();
}
