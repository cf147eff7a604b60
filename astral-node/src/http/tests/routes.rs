//! Statuses and answers of the JSON routes and the probes.

use axum::response::IntoResponse as _;
use tokio::net::UdpSocket;

use super::super::problem::Failure;
use super::{Served, node_id, pair, pair_with, served, served_with, started, until};
use crate::config::UpstreamLimit;
use crate::handle::ApiError;

const PAUSE: &str = "{\"paused\":true}";
const TICKETS: &str = "/api/v1/streams/other/tickets";

#[tokio::test(start_paused = true)]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let node = served().await;
    for path in [
        "/nothing",
        "/api/v1/",
        "/api/v2/node",
        "/assets/none",
        "/api/v1/streams/none",
        "/live/none/stream.mp4",
        "/live/none/stream.ts",
    ] {
        node.get(path).await.is_problem(404);
    }
    for (method, path, allow) in [
        ("POST", "/health", "GET"),
        ("PUT", "/api/v1/node", "DELETE"),
        ("DELETE", "/api/v1/streams", "POST"),
        ("GET", "/api/v1/streams/my-show/ticket", "DELETE"),
        ("GET", "/ingest/none", "PUT"),
        ("POST", "/live/my-show/stream.mp4", "GET"),
    ] {
        let reply = node.ask(method, path, "", "").await;
        reply.is_problem(405);
        assert!(reply.header("allow").unwrap().contains(allow), "{reply:?}");
    }
    node.get("/api/v1/streams/%ff").await.is_problem(400);
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let node = served().await;
    let json = node.json();
    let path = "/api/v1/streams";
    for (headers, body, status) in [
        ("no type", "{\"name\":\"x\"}", 415),
        ("Content-Type: text/plain\r\n", "{\"name\":\"x\"}", 415),
        ("", "{\"name\":", 400),
        ("", "{\"nam\":1,", 400),
        ("", "no", 400),
        ("", "{\"name\":\"x\",\"more\":1}", 422),
        ("", "{\"name\":7}", 422),
        ("", "{}", 422),
        ("", "[]", 422),
        ("", "{\"name\":\"  \"}", 422),
        ("", "{\"name\":\"a\\nb\"}", 422),
        ("", "{\"name\":\"My Show\"}", 409),
    ] {
        let headers = match headers {
            "" => json.clone(),
            "no type" => node.token(),
            kind => format!("{}{kind}", node.token()),
        };
        node.ask("POST", path, &headers, body)
            .await
            .is_problem(status);
    }
    let long = |n: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(n));
    node.ask("POST", path, &json, &long(101))
        .await
        .is_problem(422);
    node.ask("POST", path, &json, &long(70_000))
        .await
        .is_problem(413);
    let description = format!(
        "{{\"name\":\"x\",\"description\":\"{}\"}}",
        "x".repeat(1001)
    );
    node.ask("POST", path, &json, &description)
        .await
        .is_problem(422);
    let reply = node
        .ask(
            "POST",
            path,
            &json,
            "{\"name\":\"\u{76f4}\u{64ad}\",\"unlisted\":true}",
        )
        .await;
    assert_eq!(reply.status, 201);
    let shown = reply.json();
    assert!(shown["ingest"]["stream_key"].is_string());
    assert_eq!(shown["ingest"]["rtmp_url"], serde_json::Value::Null);
    assert_eq!(
        (&shown["unlisted"], &shown["state"]),
        (&true.into(), &"waiting".into())
    );
    assert!(
        reply
            .header("location")
            .unwrap()
            .starts_with("/api/v1/streams/")
    );
}

#[tokio::test]
async fn streams_are_found_by_every_kind_of_name() {
    let node = served().await;
    let id = node.handle.stream("my-show").await.unwrap().id;
    for name in [
        "my-show".to_owned(),
        astral_proto::slug::full_slug("My Show", id),
        id.to_string(),
        format!("astral:{id}@127.0.0.1:8000,[::1]:9"),
        format!("astral%3A{id}%40127.0.0.1%3A8000"),
    ] {
        let reply = node.get(&format!("/api/v1/streams/{name}")).await;
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(reply.json()["id"], id.to_string());
    }
}

#[tokio::test]
async fn a_share_link_finds_a_stream_that_no_known_node_has() {
    let (node, other) = (started(|_| {}).await, started(|_| {}).await);
    other.publish("Other").await;
    let share = other.handle.stream("other").await.unwrap().share;
    assert_eq!(node.handle.streams().await.len(), 0);
    let reply = node.get(&format!("/api/v1/streams/{share}")).await;
    assert_eq!(
        (reply.status, &reply.json()["slug"]),
        (200, &"other".into())
    );
}

#[tokio::test]
async fn streams_of_one_name_are_told_apart_and_the_own_one_wins() {
    let (node, other) = pair().await;
    other.publish("My Show").await;
    until(async || node.handle.streams().await.len() == 3).await;
    let twin = other.handle.stream("my-show").await.unwrap().id;
    let full = astral_proto::slug::full_slug("My Show", twin);
    let shown = node.get(&format!("/api/v1/streams/{full}")).await.json();
    assert_eq!(
        (&shown["id"], &shown["slug"]),
        (&twin.to_string().into(), &full.into())
    );
    let bare = node.get("/api/v1/streams/my-show").await.json();
    assert_eq!(
        (&bare["slug"], &bare["publisher"]),
        (&"my-show".into(), &node.handle.id().to_string().into())
    );
}

#[test]
fn an_undecided_slug_is_409_with_the_candidates() {
    // Two streams with one full slug take some 2^25 keys to make.
    let candidates = vec!["twins~aaaaa".to_owned(), "twins~bbbbb".to_owned()];
    let failure = Failure::from(ApiError::Ambiguous(candidates.clone()));
    assert_eq!(failure.problem.candidates, candidates);
    assert_eq!(failure.into_response().status(), 409);
}

#[tokio::test]
async fn own_streams_are_paused_and_ended_and_others_are_not() {
    let (node, _other) = pair().await;
    let (json, token) = (node.json(), node.token());
    let (own, foreign) = ("/api/v1/streams/my-show", "/api/v1/streams/other");
    for (patch, state) in [(PAUSE, "paused"), ("{\"paused\":false}", "waiting")] {
        let reply = node.ask("PATCH", own, &json, patch).await;
        assert_eq!((reply.status, &reply.json()["state"]), (200, &state.into()));
    }
    for wrong in ["{}", "{\"paused\":1}", "{\"paused\":true,\"more\":1}"] {
        node.ask("PATCH", own, &json, wrong).await.is_problem(422);
    }
    node.ask("PATCH", foreign, &json, PAUSE)
        .await
        .is_problem(403);
    node.ask("DELETE", foreign, &token, "")
        .await
        .is_problem(403);
    assert_eq!(node.ask("DELETE", own, &token, "").await.status, 204);
    tokio::time::pause();
    node.get(own).await.is_problem(404);
}

#[tokio::test]
async fn lists_are_paged_in_order() {
    let (node, _other) = pair().await;
    let first = node.get("/api/v1/nodes?limit=1").await.json();
    assert_eq!(first["items"][0]["name"], "node 1");
    let next = first["next"].as_str().unwrap();
    let second = node
        .get(&format!("/api/v1/nodes?limit=1&after={next}"))
        .await
        .json();
    assert_eq!(second["items"][0]["name"], "node 2");
    assert!(second["next"].is_null());
    for path in ["streams", "tickets", "nodes", "streams/my-show/tickets"] {
        let whole = node.get(&format!("/api/v1/{path}?limit=1000")).await;
        assert_eq!(whole.status, 200);
        assert!(whole.json()["items"].is_array());
        for query in ["limit=0", "limit=1001", "limit=x", "after=x", "other=1"] {
            node.get(&format!("/api/v1/{path}?{query}"))
                .await
                .is_problem(422);
        }
    }
}

#[tokio::test]
async fn nodes_are_found_and_forgotten_by_id() {
    let (node, other) = pair().await;
    let path = |id| format!("/api/v1/nodes/{id}");
    let (known, own) = (path(other.handle.id()), path(node.handle.id()));
    let unknown = path(node_id(3));
    assert_eq!(node.get(&known).await.json()["name"], "node 2");
    assert_eq!(node.get(&own).await.json()["self"], true);
    assert_eq!(node.get("/api/v1/node").await.json()["self"], true);
    let token = node.token();
    for wrong in [unknown.as_str(), "/api/v1/nodes/nonsense"] {
        node.get(wrong).await.is_problem(404);
        node.ask("DELETE", wrong, &token, "").await.is_problem(404);
    }
    assert_eq!(node.ask("DELETE", &known, &token, "").await.status, 204);
}

#[tokio::test]
async fn asking_for_a_ticket_tells_what_came_of_it() {
    let (node, other) = pair().await;
    let json = node.json();
    for status in [201, 200] {
        let reply = node.ask("POST", TICKETS, &json, "{}").await;
        let ticket = reply.json();
        assert_eq!((reply.status, &ticket["state"]), (status, &"active".into()));
        let [from, to] = [&other, &node].map(|node| node.handle.id().to_string());
        assert_eq!(
            (&ticket["source"], &ticket["destination"]),
            (&from.into(), &to.into())
        );
    }
    let path = "/api/v1/streams/my-show/tickets";
    let own = node.ask("POST", path, &json, "{}").await;
    assert_eq!((own.status, &own.body[..]), (200, &b"null"[..]));
    let to = |id| format!("{{\"destination\":\"{id}\"}}");
    for (unwilling, status) in [(other.handle.id(), 403), (node_id(9), 404)] {
        let reply = node.ask("POST", path, &json, &to(unwilling)).await;
        reply.is_problem(status);
    }
    node.ask("POST", path, &json, "{\"destination\":\"x\"}")
        .await
        .is_problem(422);
    tokio::time::pause();
    node.ask("POST", "/api/v1/streams/none/tickets", &json, "{}")
        .await
        .is_problem(404);
}

#[tokio::test]
async fn a_stream_that_nobody_may_forward_is_503_with_the_reason() {
    let (node, _other) = pair_with(|config| config.upstream_limit = UpstreamLimit::Bps(0)).await;
    tokio::time::pause();
    let full = node.ask("POST", TICKETS, &node.json(), "{}").await;
    full.is_problem(503);
    let detail = full.json()["detail"].to_string();
    assert!(detail.contains("never forwards"), "{detail}");
}

async fn ticket(node: &Served) -> String {
    let reply = node.ask("POST", TICKETS, &node.json(), "{}").await;
    reply.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tickets_are_revoked_only_under_their_own_stream() {
    let (node, other) = pair().await;
    let id = ticket(&node).await;
    let path = |slug: &str, id: &str| format!("/api/v1/streams/{slug}/tickets/{id}");
    let token = other.token();
    other.publish("Second").await;
    for wrong in [
        path("second", &id),
        path("other", "x"),
        path("other", "00000000000000aa"),
    ] {
        other
            .ask("DELETE", &wrong, &token, "")
            .await
            .is_problem(404);
    }
    let listed = other.get(TICKETS).await.json();
    assert_eq!(listed["items"][0]["id"], *id);
    let reply = other.ask("DELETE", &path("other", &id), &token, "").await;
    assert_eq!(reply.status, 204);
    until(async || other.handle.tickets().await.iter().all(|t| t.id != id)).await;
}

#[tokio::test]
async fn a_stream_is_received_until_told_to_stop() {
    let (node, _other) = pair().await;
    let (path, token) = ("/api/v1/streams/other/ticket", node.token());
    node.ask("DELETE", path, &token, "").await.is_problem(404);
    ticket(&node).await;
    let shown = node.get("/api/v1/streams/other").await.json();
    assert_eq!(shown["local"]["receiving"], true);
    assert_eq!(node.ask("DELETE", path, &token, "").await.status, 204);
    let shown = node.get("/api/v1/streams/other").await.json();
    assert_eq!(shown["local"]["receiving"], false);
    assert_eq!(
        node.get(TICKETS).await.json()["items"],
        serde_json::json!([])
    );
    node.ask("DELETE", path, &token, "").await.is_problem(404);
}

#[tokio::test]
async fn pings_carry_up_to_8_mib_both_ways() {
    let node = served().await;
    assert!(node.get("/api/v1/ping").await.body.is_empty());
    let reply = node.get("/api/v1/ping?bytes=100000").await;
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
    assert_eq!(
        node.get("/api/v1/ping?bytes=8388608").await.body.len(),
        8_388_608
    );
    node.get("/api/v1/ping?bytes=8388609").await.is_problem(413);
    node.get("/api/v1/ping?bytes=x").await.is_problem(422);
    let body = "x".repeat(8 * 1024 * 1024);
    assert_eq!(
        node.ask("POST", "/api/v1/ping", "", &body).await.json()["bytes"],
        8_388_608
    );
    node.ask("POST", "/api/v1/ping", "", &format!("{body}x"))
        .await
        .is_problem(413);
}

#[tokio::test(start_paused = true)]
async fn probes_tell_alive_from_ready() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer = silent.local_addr().unwrap().to_string().parse().unwrap();
    let node = served_with(|config| config.peers = vec![peer]).await;
    assert_eq!(node.get("/health").await.status, 200);
    node.get("/ready").await.is_problem(503);
    until(async || node.handle.is_ready()).await;
    assert_eq!(node.get("/ready").await.status, 200);
    let head = node.ask("HEAD", "/health", "", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn the_watch_page_names_its_stream_harmlessly() {
    let node = served().await;
    let page = node.get("/watch/my-show").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let guard = format!("content=\"{}\"", node.handle.guard());
    assert!(page.text().contains("content=\"my-show\"") && page.text().contains(&guard));
    let odd = node
        .ask(
            "GET",
            "/watch/%22%3E%3Cscript%3E",
            "Accept: text/html\r\n",
            "",
        )
        .await;
    assert_eq!(odd.status, 404);
    assert!(odd.text().contains("&quot;&gt;&lt;script&gt;"));
    node.get("/watch/none").await.is_problem(404);
    for joins in ["/watch/my-show", "/watch/my-show?embedded"] {
        assert!(node.get(joins).await.text().contains("content=\"at once\""));
    }
    let framed = node.get("/watch/my-show?controls&embed").await;
    assert!(framed.text().contains("content=\"click\""));
    assert!(framed.text().contains("<h1 id=\"name\">My Show</h1>"));
    // By its public name it is offered to strangers, who have no part in it.
    let public = "Host: public.example\r\n";
    let framed = node
        .ask_as(public, "GET", "/watch/my-show?embed", "", "")
        .await;
    assert!(framed.text().contains("content=\"at once\""));
    assert!(!framed.text().contains(node.handle.guard()));
}

#[tokio::test]
async fn assets_are_asked_for_again_only_when_they_have_changed() {
    let node = served().await;
    for (path, kind) in [
        ("/assets/player/player.js", "text/javascript; charset=utf-8"),
        (
            "/assets/vendor/hls.min.mjs",
            "text/javascript; charset=utf-8",
        ),
        ("/assets/common/base.css", "text/css; charset=utf-8"),
        ("/assets/vendor/hls.js.LICENSE", "text/plain; charset=utf-8"),
    ] {
        let asset = node.get(path).await;
        assert_eq!(
            (asset.status, asset.header("content-type")),
            (200, Some(kind))
        );
        let etag = asset.header("etag").unwrap();
        let known = format!("If-None-Match: {etag}\r\n");
        let again = node.ask("GET", path, &known, "").await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    for path in ["/assets/none.js", "/assets/player", "/assets/../watch.html"] {
        node.get(path).await.is_problem(404);
    }
}

#[tokio::test]
async fn the_owners_pages_carry_the_guard_and_nobody_elses_do() {
    let node = served().await;
    let frame =
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n";
    let link = frame.replace("iframe", "document");
    for path in ["/", "/publish"] {
        let page = node.get(path).await;
        assert_eq!(
            (page.status, page.text().contains(node.handle.guard())),
            (200, true)
        );
        assert_eq!(node.ask("GET", path, &link, "").await.status, 200);
        node.ask("GET", path, frame, "").await.is_problem(403);
        let proxied = node.ask("GET", path, "Via: 1.1 proxy\r\n", "").await;
        assert_eq!(proxied.status, 401);
        assert!(!proxied.text().contains(node.handle.guard()));
        assert!(proxied.text().contains("<form"), "it asks for the token");
    }
}
