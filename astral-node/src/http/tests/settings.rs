//! `/settings`.

use super::*;

#[tokio::test]
async fn settings_are_shown_with_their_source_and_changed_at_once() {
    let node = served().await;
    let path = "/api/v1/settings";
    let shown = node.get(path).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json()["name"]["changeable"], true);
    assert_eq!(shown.json()["http"]["changeable"], false);

    // What JSON calls a whole number may have a point.
    let body = r#"{"name": "Renamed", "upstream_limit": 5000000.0}"#;
    let without = node.ask("PATCH", path, JSON, body).await;
    without.is_problem(401);
    let changed = node.ask("PATCH", path, &node.json(), body).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["name"]["source"], "saved");
    let this = node.get("/api/v1/node").await.json();
    assert_eq!(this["name"], "Renamed");
    assert_eq!(this["upload_limit_bps"], 5_000_000);

    let unknown = node
        .ask("PATCH", path, &node.json(), r#"{"colour": "red"}"#)
        .await;
    unknown.is_problem(422);
    let fixed = node
        .ask("PATCH", path, &node.json(), r#"{"http": "1.2.3.4:5"}"#)
        .await;
    fixed.is_problem(422);
    let back = node
        .ask("PATCH", path, &node.json(), r#"{"name": null}"#)
        .await;
    assert_eq!(back.status, 200);
    assert_ne!(node.get("/api/v1/node").await.json()["name"], "Renamed");
}
