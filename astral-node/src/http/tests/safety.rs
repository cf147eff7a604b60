//! One test per rule of "Safety of the local API" (DESIGN §8).

use std::net::Ipv4Addr;

use astral_proto::api::StreamState;

use super::{JSON, pair, served, served_with, until};

const STREAM: &str = "/api/v1/streams/my-show";
const PAUSE: &str = "{\"paused\":true}";
const NAVIGATION: &str =
    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";

#[tokio::test]
async fn host_must_be_a_name_of_this_node() {
    let node = served().await;
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "public.example",
    ] {
        let reply = node
            .ask_as(&format!("Host: {host}\r\n"), "GET", "/health", "", "")
            .await;
        assert_eq!(reply.status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8000",
        "192.0.2.1",
        "localhost.evil.example",
    ] {
        for path in [
            "/health",
            "/api/v1/node",
            "/live/my-show/stream.mp4",
            "/live/my-show/stream.ts",
            "/nothing",
        ] {
            let reply = node
                .ask_as(&format!("Host: {host}\r\n"), "GET", path, &node.token(), "")
                .await;
            reply.is_problem(421);
        }
    }
    let absolute = "http://evil.example/health";
    node.ask("GET", absolute, "", "").await.is_problem(421);
}

#[tokio::test]
async fn a_request_without_one_proper_host_is_malformed() {
    let node = served().await;
    for host in [
        "",
        "Host: a\r\nHost: localhost\r\n",
        "Host: a@localhost\r\n",
        "Host: \r\n",
    ] {
        node.ask_as(host, "GET", "/health", "", "")
            .await
            .is_problem(400);
    }
}

#[tokio::test]
async fn other_sites_are_refused_media_included() {
    let node = served().await;
    for from in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://127.0.0.1:1\r\n",
        "Origin: http://localhost:1\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: same-origin\r\nOrigin: https://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: video\r\n",
    ] {
        for path in [
            "/api/v1/streams",
            "/live/my-show/stream.mp4",
            "/live/my-show/stream.ts",
            "/watch/my-show",
            "/health",
        ] {
            node.ask("GET", path, from, "").await.is_problem(403);
        }
        let with_token = format!("{from}{}", node.json());
        node.ask("POST", "/api/v1/streams", &with_token, "{}")
            .await
            .is_problem(403);
        node.ask("PUT", "/ingest/good", from, "ftyp")
            .await
            .is_problem(403);
        let upgrade = format!(
            "{from}Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        node.ask("GET", "/live/my-show/ws", &upgrade, "")
            .await
            .is_problem(403);
    }
}

#[tokio::test]
async fn an_own_origin_that_came_by_way_of_another_site_is_refused() {
    let node = served().await;
    let own = format!("Origin: http://{}\r\n", node.at);
    let redirected = format!("{own}Sec-Fetch-Site: cross-site\r\n");
    let reply = node.ask("GET", "/api/v1/node", &redirected, "").await;
    reply.is_problem(403);
    let reply = node.ask("GET", "/api/v1/node", &own, "").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn links_lead_to_pages_and_to_nothing_else() {
    let node = served().await;
    assert_eq!(
        node.ask("GET", "/watch/my-show", NAVIGATION, "")
            .await
            .status,
        200
    );
    for path in [
        "/api/v1/streams",
        "/live/my-show/stream.mp4",
        "/assets/player/player.js",
    ] {
        node.ask("GET", path, NAVIGATION, "").await.is_problem(403);
    }
    node.ask("POST", "/watch/my-show", NAVIGATION, "")
        .await
        .is_problem(403);
    let frame = NAVIGATION.replace("document", "iframe");
    node.ask("GET", "/watch/my-show", &frame, "")
        .await
        .is_problem(403);
    let embedded = node.ask("GET", "/watch/my-show?embed", &frame, "").await;
    assert_eq!(embedded.status, 200);
    let policy = embedded.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors *"), "{policy}");
}

#[tokio::test(start_paused = true)]
async fn allowed_origins_get_cors_answers() {
    let node = served().await;
    let origin = "Origin: https://site.example\r\nSec-Fetch-Site: cross-site\r\n";
    let reply = node.ask("GET", "/api/v1/streams", origin, "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://site.example")
    );
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    assert!(reply.header("vary").unwrap().contains("origin"));
    let asks = format!("{origin}Access-Control-Request-Method: PATCH\r\n");
    let reply = node.ask("OPTIONS", "/api/v1/streams/x", &asks, "").await;
    assert_eq!(reply.status, 204);
    assert!(
        reply
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PATCH")
    );
    assert_eq!(reply.header("access-control-max-age"), Some("7200"));
    assert!(
        !reply
            .header("access-control-allow-headers")
            .unwrap()
            .contains("guard")
    );
    let reply = node.ask("GET", "/api/v1/streams/none", origin, "").await;
    reply.is_problem(404);
    assert!(reply.header("access-control-allow-origin").is_some());
    let evil = asks.replace("site.example", "evil.example");
    let reply = node.ask("OPTIONS", "/api/v1/streams/x", &evil, "").await;
    reply.is_problem(403);
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn every_change_needs_the_token_or_the_guard() {
    let node = served().await;
    let own = format!("Origin: http://{}\r\n", node.at);
    let guard = node.guard();
    for (method, path) in [
        ("DELETE", "/api/v1/node"),
        ("DELETE", "/api/v1/nodes/x"),
        ("POST", "/api/v1/streams"),
        ("PATCH", "/api/v1/streams/my-show"),
        ("DELETE", "/api/v1/streams/my-show"),
        ("POST", "/api/v1/streams/my-show/tickets"),
        ("DELETE", "/api/v1/streams/my-show/tickets/x"),
        ("DELETE", "/api/v1/streams/my-show/ticket"),
    ] {
        let allowed = "Origin: https://site.example\r\n";
        for headers in [
            String::new(),
            own.clone(),
            guard.clone(),
            format!("{allowed}{guard}"),
            format!("{own}X-Astral-Guard: other\r\n"),
            "Authorization: Bearer wrong\r\n".to_owned(),
            "Authorization: Basic dGhlLXRva2Vu\r\n".to_owned(),
        ] {
            let reply = node.ask(method, path, &headers, "").await;
            reply.is_problem(401);
            assert!(
                reply
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer")
            );
        }
    }
    let untouched = node.handle.stream("my-show").await.unwrap();
    assert_eq!(untouched.state, StreamState::Waiting);
    for headers in [
        node.token(),
        format!("{own}{guard}"),
        format!("{guard}Sec-Fetch-Site: same-origin\r\n"),
    ] {
        let headers = format!("{headers}{JSON}");
        let reply = node.ask("PATCH", STREAM, &headers, PAUSE).await;
        assert_eq!(reply.status, 200, "{headers}");
    }
    let site = format!("Origin: https://site.example\r\n{}", node.token());
    let reply = node.ask("DELETE", "/api/v1/node", &site, "").await;
    assert_eq!(reply.status, 202);
    node.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_token_is_told_even_where_none_is_needed() {
    let node = served().await;
    let wrong = "Authorization: Bearer wrong\r\n";
    node.ask("GET", "/api/v1/node", wrong, "")
        .await
        .is_problem(401);
    let basic = "Authorization: Basic eA==\r\n";
    assert_eq!(node.ask("GET", "/api/v1/node", basic, "").await.status, 200);
}

#[tokio::test]
async fn strangers_behind_a_proxy_are_no_local_callers() {
    let node = served().await;
    let public = "Host: public.example\r\n";
    let own = "Origin: https://public.example\r\n";
    let page = node.ask_as(public, "GET", "/watch/my-show", own, "").await;
    assert_eq!(page.status, 200);
    assert!(!page.text().contains(node.handle.guard()));
    let guard = format!("{own}{}{JSON}", node.guard());
    let reply = node.ask_as(public, "PATCH", STREAM, &guard, PAUSE).await;
    reply.is_problem(401);
    let token = format!("{own}{}", node.json());
    let reply = node.ask_as(public, "PATCH", STREAM, &token, PAUSE).await;
    assert_eq!(reply.status, 200);
    let reply = node.ask("PATCH", STREAM, &token, PAUSE).await;
    reply.is_problem(403);
    for proxied in [
        "X-Forwarded-For: 192.0.2.1",
        "Forwarded: for=x",
        "Via: 1.1 x",
    ] {
        let page = node
            .ask("GET", "/watch/my-show", &format!("{proxied}\r\n"), "")
            .await;
        assert!(!page.text().contains(node.handle.guard()), "{proxied}");
        let reply = node
            .ask("GET", "/api/v1/node", &format!("{proxied}\r\n"), "")
            .await;
        reply.is_problem(401);
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_loopback_only_media_health_and_the_watch_page_are_open() {
    let node = served_with(|config| config.http = (Ipv4Addr::UNSPECIFIED, 0).into()).await;
    for path in ["/health", "/watch/my-show", "/assets/player/player.js"] {
        assert_eq!(node.get(path).await.status, 200, "{path}");
    }
    node.get("/live/none/stream.mp4").await.is_problem(404);
    node.ask("PUT", "/ingest/none", "", "x")
        .await
        .is_problem(403);
    for path in [
        "/api/v1/node",
        "/api/v1/streams",
        "/api/v1/ping",
        "/ready",
        "/nothing",
    ] {
        node.get(path).await.is_problem(401);
    }
    let token = node.token();
    assert_eq!(
        node.ask("GET", "/api/v1/node", &token, "").await.status,
        200
    );
    let page = node.get("/watch/my-show").await;
    assert!(!page.text().contains(node.handle.guard()));
    let headers = format!("Origin: http://{}\r\n{}", node.at, node.guard());
    node.ask("GET", "/api/v1/node", &headers, "")
        .await
        .is_problem(401);
}

#[tokio::test]
async fn require_token_closes_the_pages_too() {
    let node = served_with(|config| config.require_token = true).await;
    for path in ["/watch/my-show", "/api/v1/streams"] {
        node.get(path).await.is_problem(401);
        let reply = node.ask("GET", path, &node.token(), "").await;
        assert_eq!(reply.status, 200, "{path}");
    }
    until(async || node.handle.is_ready()).await;
    for path in ["/health", "/ready"] {
        assert_eq!(node.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_link_made_with_the_token_opens_a_page_once() {
    let node = served_with(|config| config.require_token = true).await;
    let body = r#"{"path":"/watch/my-show"}"#;
    let path = "/api/v1/links";
    node.ask("POST", path, JSON, body).await.is_problem(401);
    for wrong in [
        "//evil.example",
        "/api/v1/node",
        "/watch/",
        "/watch/a/b",
        "/\\\\evil",
    ] {
        let body = format!("{{\"path\":\"{wrong}\"}}");
        let reply = node.ask("POST", path, &node.json(), &body).await;
        reply.is_problem(422);
    }
    for body in [body, "{}"] {
        let made = node.ask("POST", path, &node.json(), body).await;
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(made.json()["expires_in_s"], 60);
        let url = made.json()["url"].as_str().unwrap().to_owned();
        let page = url.strip_prefix(&format!("http://{}", node.at)).unwrap();
        let opened = node.get(page).await;
        assert_eq!(opened.status, 200, "{opened:?}");
        assert!(opened.text().contains(node.handle.guard()));
        let again = node.get(page).await;
        assert_eq!(again.status, 401);
        assert!(!again.text().contains(node.handle.guard()));
    }
}

#[tokio::test]
async fn answers_carry_the_headers_that_keep_other_sites_out() {
    let node = served().await;
    for path in ["/health", "/api/v1/node", "/watch/my-show", "/nothing"] {
        let reply = node.get(path).await;
        let value = |name| reply.header(name).unwrap_or("").to_owned();
        assert_eq!(
            value("cross-origin-resource-policy"),
            "same-origin",
            "{path}"
        );
        assert_eq!(value("x-content-type-options"), "nosniff");
        assert_eq!(value("referrer-policy"), "same-origin");
        assert_eq!(value("cache-control"), "no-store");
        assert!(value("content-security-policy").contains("frame-ancestors 'none'"));
    }
}

#[tokio::test]
async fn the_encoders_secret_is_shown_to_trusted_callers_only() {
    let (node, _other) = pair().await;
    let key = node.key("my-show").await;
    let token = node.token();
    for (path, at) in [
        ("/api/v1/streams/my-show", "/ingest"),
        ("/api/v1/streams", "/items/0/ingest"),
    ] {
        let reply = node.get(path).await;
        assert_eq!(reply.json().pointer(at), None);
        assert!(!reply.text().contains(&key));
        let shown = node.ask("GET", path, &token, "").await.json();
        assert_eq!(shown.pointer(at).unwrap()["stream_key"], *key);
    }
    let foreign = node
        .ask("GET", "/api/v1/streams/other", &token, "")
        .await
        .json();
    assert_eq!(foreign.get("ingest"), None);
}
