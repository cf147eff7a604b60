//! The API as nodes meet it: the real program on a free port.

mod common;

use astral_proto::ids::SecretKey;
use astral_proto::record::{SignedNode, StreamState};
use common::{Server, key, node, node_of, stream, submission};
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
    let metrics = server.ask("GET", "/metrics", &[], vec![]).await;
    for line in [
        "astral_web_nodes 1",
        "astral_web_supernodes 1",
        "astral_web_submissions_total{kind=\"node\",status=\"201\"} 1",
        "astral_web_requests_total{area=\"api\",status=\"201\"} 1",
        "astral_web_directory_failures_total 0",
    ] {
        assert!(metrics.text().contains(&format!("\n{line}\n")), "{line}");
    }
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
async fn address_that_keeps_failing_is_told_to_wait_and_its_neighbour_is_not() {
    let server = Server::behind_proxy();
    let bad = async |ip| server.post_from(ip, "/api/v1/nodes", "{").await;
    let mut last = bad("203.0.113.66").await;
    for _ in 0..100 {
        if last.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        assert_eq!(last.status, 400);
        last = bad("203.0.113.66").await;
    }
    assert_eq!(last.status, 429);
    let wait: u64 = last.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(bad("203.0.113.67").await.status, 400);
}

#[tokio::test]
async fn address_that_asks_too_much_is_told_to_wait_and_loopback_is_not_counted() {
    let server = Server::behind_proxy();
    let ask = async |ip| {
        let headers = [("x-forwarded-for", ip)];
        server
            .ask("GET", "/api/v1/ping?bytes=1000000", &headers, vec![])
            .await
    };
    let mut last = ask("2001:db8::1").await;
    for _ in 0..100 {
        if last.status == 429 {
            break;
        }
        last = ask("2001:db8::1").await;
    }
    assert_eq!(last.status, 429);
    assert_eq!(last.header("content-type"), "application/problem+json");
    assert!(last.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(ask("2001:db8::2").await.status, 429, "the same /64");
    assert_eq!(ask("2001:db8:0:1::1").await.status, 200);
    for _ in 0..40 {
        let own = server
            .ask("GET", "/api/v1/ping?bytes=1000000", &[], vec![])
            .await;
        assert_eq!(own.status, 200);
    }
}

#[tokio::test]
async fn address_comes_from_a_header_only_if_the_proxy_is_trusted() {
    let record = submission(node(1, 1, "203.0.113.5:9000", None).wire());
    let open = Server::start();
    let refused = open
        .post_from("203.0.113.5", "/api/v1/nodes", &record)
        .await;
    assert_eq!(refused.status, 422);
    let behind = Server::behind_proxy();
    let taken = behind
        .post_from("203.0.113.5", "/api/v1/nodes", &record)
        .await;
    assert_eq!(taken.status, 201);
    assert_eq!(taken.json()["address"], "203.0.113.5");
    let six = submission(node(2, 1, "[2001:db8::5]:9000", None).wire());
    let taken = behind
        .post_from("[2001:db8::5]:4711", "/api/v1/nodes", &six)
        .await;
    assert_eq!(taken.json()["address"], "2001:db8::5");
}

#[tokio::test]
async fn network_lists_sixteen_nodes_and_samples_are_spread_over_networks() {
    let server = Server::behind_proxy();
    let submit = async |number: u32, ip: String, address: String| {
        let record = node_of(&key(number), 1, 1, &address, None);
        let body = submission(record.wire());
        server.post_from(&ip, "/api/v1/nodes", &body).await
    };
    for host in 1..=20 {
        let ip = format!("203.0.113.{host}");
        let answer = submit(host, ip.clone(), format!("{ip}:1")).await;
        assert_eq!(answer.status, if host <= 16 { 201 } else { 429 }, "{host}");
        let ip = format!("2001:db8:1:{host:x}::1");
        let answer = submit(100 + host, ip.clone(), format!("[{ip}]:1")).await;
        assert_eq!(answer.status, if host <= 16 { 201 } else { 429 }, "{host}");
    }
    for network in 0..5 {
        let ip = format!("198.51.{network}.1");
        let answer = submit(200 + network, ip.clone(), format!("{ip}:1")).await;
        assert_eq!(answer.status, 201);
    }
    let sample = server
        .ask(
            "GET",
            "/api/v1/bootstrap",
            &[("x-forwarded-for", "192.0.2.1")],
            vec![],
        )
        .await;
    let sample = sample.json()["supernodes"].as_array().unwrap().clone();
    assert_eq!(sample.len(), 16);
    for network in 0..5 {
        let address = json!([format!("198.51.{network}.1:1")]);
        let there = sample.iter().any(|node| node["addresses"] == address);
        assert!(there, "{network}");
    }
}

#[tokio::test]
async fn every_documented_route_is_there_and_every_promised_one_is_documented() {
    let server = Server::start();
    let document = server.get("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let asked = path.replace("{slug}", "none");
            let answer = server
                .ask(&method.to_uppercase(), &asked, &[], vec![])
                .await;
            assert_ne!(answer.status, 405, "{method} {path}");
            let statuses = &methods[method]["responses"];
            let status = answer.status.as_str();
            assert!(statuses.get(status).is_some(), "{method} {path}: {status}");
        }
    }
    for (path, method) in [
        ("/api/v1/bootstrap", "get"),
        ("/api/v1/nodes", "get"),
        ("/api/v1/nodes", "post"),
        ("/api/v1/streams", "get"),
        ("/api/v1/streams", "post"),
        ("/api/v1/streams/{slug}", "get"),
        ("/api/v1/ping", "get"),
        ("/api/v1/ping", "post"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
    ] {
        assert!(paths[path].get(method).is_some(), "{method} {path}");
    }
}

#[tokio::test]
async fn pages_of_all_sites_may_read_and_none_may_write() {
    let server = Server::start();
    let asks = [
        ("origin", "https://elsewhere.example"),
        ("access-control-request-method", "POST"),
    ];
    let preflight = server.ask("OPTIONS", "/api/v1/nodes", &asks, vec![]).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        "GET, HEAD"
    );
    let written = server.post("/api/v1/nodes", "{}").await;
    assert_eq!(written.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn unknown_name_is_answered_with_near_ones() {
    let server = Server::start();
    let record = stream(1, 1, |_| ());
    server
        .post("/api/v1/streams", &submission(record.wire()))
        .await;
    let answer = server
        .ask("GET", "/api/v1/streams/my-shwo", &[], vec![])
        .await;
    assert_eq!(answer.status, 404);
    let answer = server.ask("GET", "/api/v1/streams/show", &[], vec![]).await;
    assert_eq!(answer.json()["candidates"], json!(["my-show"]));
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
