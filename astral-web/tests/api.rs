//! The API as nodes meet it: the real program on a free port.

mod common;

use astral_proto::ids::SecretKey;
use astral_proto::record::{SignedNode, StreamState};
use common::{Server, node, stream, submission};
use hyper::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn every_route_answers_and_unknown_ones_are_problems() {
    let server = Server::start();
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("GET", "/api/v1/bootstrap", 200),
        ("GET", "/api/v1/nodes?role=supernode&limit=5", 200),
        ("GET", "/api/v1/streams", 200),
        ("GET", "/api/v1/ping?bytes=70000", 200),
        ("GET", "/api/v1/ping?bytes=9000000", 413),
        ("GET", "/api/v1/nodes?limit=0", 422),
        ("GET", "/api/v1/streams?after=zz", 422),
        ("GET", "/api/v1/streams/none", 404),
        ("GET", "/api/v1/none", 404),
        ("DELETE", "/api/v1/nodes", 405),
    ] {
        let answer = server.ask(method, path, &[], vec![]).await;
        assert_eq!(answer.status, status, "{method} {path}");
        if status >= 400 {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.json()["status"], status);
        }
        if method == "GET" && path.starts_with("/api") {
            assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        }
    }
    let ping = server
        .ask("GET", "/api/v1/ping?bytes=70000", &[], vec![])
        .await;
    assert_eq!(ping.body.len(), 70_000);
    let ping = server
        .ask("POST", "/api/v1/ping", &[], vec![1; 5_000])
        .await;
    assert_eq!(ping.json()["bytes"], 5_000);
    let ping = server
        .ask("POST", "/api/v1/ping", &[], vec![1; 9_000_000])
        .await;
    assert_eq!(ping.status, 413);
}

#[tokio::test]
async fn node_is_listed_renewed_and_withdrawn_and_no_old_record_brings_it_back() {
    let server = Server::start();
    let first = submission(node(1, 1, "127.0.0.1:9000", None).wire());
    assert_eq!(server.post("/api/v1/nodes", &first).await.status, 201);
    let listed = server.get("/api/v1/nodes").await;
    assert_eq!(listed["items"][0]["addresses"], json!(["127.0.0.1:9000"]));
    let second = submission(node(1, 2, "127.0.0.1:9000", None).wire());
    let renewed = server.post("/api/v1/nodes", &second).await;
    assert_eq!(renewed.status, 200);
    assert_eq!(
        renewed.json(),
        json!({"lease_s": 30, "address": "127.0.0.1"})
    );
    assert_eq!(
        server.post("/api/v1/nodes", &second).await.status,
        409,
        "replayed"
    );
    assert_eq!(
        server.post("/api/v1/nodes", &first).await.status,
        409,
        "older"
    );
    let tombstone = submission(node(1, 3, "127.0.0.1:9000", Some(true)).wire());
    assert_eq!(server.post("/api/v1/nodes", &tombstone).await.status, 200);
    assert_eq!(server.get("/api/v1/nodes").await["items"], json!([]));
    assert_eq!(
        server.post("/api/v1/nodes", &second).await.status,
        409,
        "after removal"
    );
}

#[tokio::test]
async fn record_that_is_forged_foreign_malformed_or_too_large_is_refused() {
    let server = Server::start();
    let mut forged = node(1, 1, "127.0.0.1:9000", None).wire().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let foreign = node(1, 1, "203.0.113.5:9000", None);
    let good = submission(node(1, 1, "127.0.0.1:9000", None).wire());
    let mut extra: Value = serde_json::from_str(&good).unwrap();
    extra["lease_s"] = json!(3600);
    for (body, status) in [
        (submission(&forged), 422),
        (submission(foreign.wire()), 422),
        (extra.to_string(), 422),
        (submission(b"\xff"), 400),
        (json!({"record": "="}).to_string(), 400),
        ("{".to_owned(), 400),
        (submission(&[0; 5_000]), 413),
        (submission(&[0; 20_000]), 413),
    ] {
        let answer = server.post("/api/v1/nodes", &body).await;
        assert_eq!(answer.status, status, "{}", &body[..body.len().min(80)]);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let untyped = server
        .ask("POST", "/api/v1/nodes", &[], good.into_bytes())
        .await;
    assert_eq!(untyped.status, 415);
    assert_eq!(server.get("/api/v1/nodes").await["items"], json!([]));
}

#[tokio::test]
async fn address_that_keeps_failing_is_told_to_wait() {
    let server = Server::start();
    let mut last = server.post("/api/v1/nodes", "{").await;
    for _ in 0..400 {
        if last.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        last = server.post("/api/v1/nodes", "{").await;
    }
    assert_eq!(last.status, 429);
    assert_eq!(last.header("retry-after"), "60");
}

#[tokio::test]
async fn streams_are_found_by_slug_and_id_and_unlisted_ones_by_id_only() {
    let server = Server::start();
    for (seed, unlisted) in [(1, None), (2, None), (3, Some(true))] {
        let record = stream(seed, 1, |r| r.unlisted = unlisted);
        let answer = server
            .post("/api/v1/streams", &submission(record.wire()))
            .await;
        assert_eq!(answer.status, 201);
    }
    let items = server.get("/api/v1/streams").await["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 2);
    for item in items.as_array().unwrap() {
        let slug = item["slug"].as_str().unwrap();
        let found = server.get(&format!("/api/v1/streams/{slug}")).await;
        assert_eq!(found["id"], item["id"]);
    }
    let page = server.get("/api/v1/streams?limit=1").await;
    let rest = format!("/api/v1/streams?after={}", page["next"].as_str().unwrap());
    assert_eq!(server.get(&rest).await["items"], json!([items[1]]));
    let hidden = stream(3, 1, |_| ()).value().id();
    let found = server.get(&format!("/api/v1/streams/{hidden}")).await;
    assert_eq!(found["id"], hidden.to_string());
    let ended = stream(1, 2, |r| r.state = StreamState::Ended);
    server
        .post("/api/v1/streams", &submission(ended.wire()))
        .await;
    let left = server.get("/api/v1/streams").await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["slug"], "my-show");
}

#[tokio::test]
async fn bootstrap_that_has_not_changed_is_not_sent_again() {
    let server = Server::start();
    server
        .post(
            "/api/v1/nodes",
            &submission(node(1, 1, "127.0.0.1:9000", None).wire()),
        )
        .await;
    let first = server.ask("GET", "/api/v1/bootstrap", &[], vec![]).await;
    let supernode = first.json()["supernodes"][0]["record"].clone();
    let bytes = data_encoding::BASE64URL_NOPAD.decode(supernode.as_str().unwrap().as_bytes());
    let key = SecretKey::from_seed([1; 32]).public();
    assert_eq!(
        SignedNode::decode(&bytes.unwrap()).unwrap().value().key,
        key
    );
    let tag = first.header("etag");
    let again = server
        .ask(
            "GET",
            "/api/v1/bootstrap",
            &[("if-none-match", tag)],
            vec![],
        )
        .await;
    assert_eq!(
        (again.status, again.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    server
        .post("/api/v1/streams", &submission(stream(1, 1, |_| ()).wire()))
        .await;
    let changed = server
        .ask(
            "GET",
            "/api/v1/bootstrap",
            &[("if-none-match", tag)],
            vec![],
        )
        .await;
    assert_eq!(changed.status, 200);
}
