//! Statuses and answers of the JSON routes and the probes.

use std::collections::VecDeque;

use super::{JSON, OWN, TOKEN, served, served_with, ticket};
use crate::handle::{ApiError, Watched};

fn json_and_token() -> String {
    format!("{TOKEN}{JSON}")
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let node = served().await;
    for path in [
        "/",
        "/nothing",
        "/api/v1/",
        "/api/v2/node",
        "/assets/none",
        "/api/v1/streams/none",
        "/live/none/stream.mp4",
    ] {
        node.get(path).await.is_problem(404);
    }
    for (method, path, allow) in [
        ("POST", "/health", "GET"),
        ("PUT", "/api/v1/node", "DELETE"),
        ("DELETE", "/api/v1/streams", "POST"),
        ("GET", "/api/v1/streams/my-show/ticket", "DELETE"),
        ("GET", "/ingest/good", "PUT"),
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
    let json = json_and_token();
    let path = "/api/v1/streams";
    for (headers, body, status) in [
        (TOKEN, "{\"name\":\"x\"}", 415),
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
            TOKEN => TOKEN.to_owned(),
            kind => format!("{TOKEN}{kind}"),
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
    assert_eq!(reply.json()["ingest"]["stream_key"], "good");
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
    let id = uuid::Uuid::from_u128(OWN);
    let id_of = astral_proto::ids::StreamId(id);
    for name in [
        "my-show".to_owned(),
        astral_proto::slug::full_slug("My Show", id_of),
        "My%20Show".to_owned(),
        id.to_string(),
        format!("astral:{id}@127.0.0.1:8000,[::1]:9"),
        format!("astral%3A{id}%40127.0.0.1%3A8000"),
    ] {
        let reply = node.get(&format!("/api/v1/streams/{name}")).await;
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(reply.json()["id"], id.to_string());
    }
    let reply = node.get("/api/v1/streams/twins").await;
    reply.is_problem(409);
    assert_eq!(reply.json()["candidates"][1], "twins~bbbbb");
}

#[tokio::test]
async fn own_streams_are_paused_and_ended_and_others_are_not() {
    let node = served().await;
    let json = json_and_token();
    let pause = "{\"paused\":true}";
    let reply = node
        .ask("PATCH", "/api/v1/streams/my-show", &json, pause)
        .await;
    assert_eq!(
        (reply.status, &reply.json()["state"]),
        (200, &"paused".into())
    );
    assert_eq!(
        node.ask("DELETE", "/api/v1/streams/my-show", TOKEN, "")
            .await
            .status,
        204
    );
    node.ask("PATCH", "/api/v1/streams/other", &json, pause)
        .await
        .is_problem(403);
    node.ask("DELETE", "/api/v1/streams/other", TOKEN, "")
        .await
        .is_problem(403);
    node.ask("PATCH", "/api/v1/streams/my-show", &json, "{}")
        .await
        .is_problem(422);
}

#[tokio::test]
async fn lists_are_paged_in_order() {
    let node = served().await;
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
        assert_eq!(
            node.get(&format!("/api/v1/{path}?limit=1000")).await.status,
            200
        );
        for query in ["limit=0", "limit=1001", "limit=x", "after=x", "other=1"] {
            node.get(&format!("/api/v1/{path}?{query}"))
                .await
                .is_problem(422);
        }
    }
}

#[tokio::test]
async fn nodes_are_found_and_forgotten_by_id() {
    let node = served().await;
    let known = format!("/api/v1/nodes/{}", super::node(2).uuid);
    let unknown = format!("/api/v1/nodes/{}", super::node(3).uuid);
    assert_eq!(node.get(&known).await.json()["name"], "node 2");
    assert_eq!(node.get("/api/v1/node").await.json()["self"], true);
    node.get(&unknown).await.is_problem(404);
    node.get("/api/v1/nodes/nonsense").await.is_problem(404);
    assert_eq!(node.ask("DELETE", &known, TOKEN, "").await.status, 204);
    node.ask("DELETE", &unknown, TOKEN, "")
        .await
        .is_problem(404);
}

#[tokio::test]
async fn asking_for_a_ticket_tells_what_came_of_it() {
    let node = served_with("127.0.0.1:0", |_, fake| {
        fake.watched = VecDeque::from([
            Ok(Watched::New(ticket("1"))),
            Ok(Watched::Already(ticket("1"))),
            Ok(Watched::Own),
            Err(ApiError::NoRoom("nobody has room".into())),
        ]);
    })
    .await;
    let (path, json) = ("/api/v1/streams/my-show/tickets", json_and_token());
    for status in [201, 200] {
        let reply = node.ask("POST", path, &json, "{}").await;
        assert_eq!(
            (reply.status, &reply.json()["state"]),
            (status, &"active".into())
        );
    }
    let own = node.ask("POST", path, &json, "{}").await;
    assert_eq!((own.status, &own.body[..]), (200, &b"null"[..]));
    let full = node.ask("POST", path, &json, "{}").await;
    full.is_problem(503);
    assert!(full.header("retry-after").is_some());
    let to = |n| format!("{{\"destination\":\"{}\"}}", super::node(n).uuid);
    assert_eq!(node.ask("POST", path, &json, &to(2)).await.status, 201);
    node.ask("POST", path, &json, &to(9)).await.is_problem(403);
    node.ask("POST", path, &json, "{\"destination\":\"x\"}")
        .await
        .is_problem(422);
    node.ask("POST", "/api/v1/streams/none/tickets", &json, "{}")
        .await
        .is_problem(404);
}

#[tokio::test]
async fn tickets_are_revoked_only_under_their_own_stream() {
    let node = served().await;
    let path = |slug: &str, id: &str| format!("/api/v1/streams/{slug}/tickets/{id}");
    let id = "00000000000000aa";
    node.ask("DELETE", &path("other", id), TOKEN, "")
        .await
        .is_problem(404);
    node.ask("DELETE", &path("my-show", "x"), TOKEN, "")
        .await
        .is_problem(404);
    assert_eq!(
        node.ask("DELETE", &path("my-show", id), TOKEN, "")
            .await
            .status,
        204
    );
    assert_eq!(node.handle.fake().calls, [format!("revoke {id}")]);
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

#[tokio::test]
async fn probes_tell_alive_from_ready() {
    let node = served_with("127.0.0.1:0", |_, fake| fake.ready = false).await;
    assert_eq!(node.get("/health").await.status, 200);
    let reply = node.get("/ready").await;
    reply.is_problem(503);
    assert!(reply.header("retry-after").is_some());
    node.handle.fake().ready = true;
    assert_eq!(node.get("/ready").await.status, 200);
    let head = node.ask("HEAD", "/health", "", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn the_watch_page_names_its_stream_harmlessly() {
    let node = served().await;
    let page = node.get("/watch/my-show").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let text = String::from_utf8(page.body).unwrap();
    assert!(text.contains("content=\"my-show\"") && text.contains("content=\"the-guard\""));
    let odd = node
        .ask(
            "GET",
            "/watch/%22%3E%3Cscript%3E",
            "Accept: text/html\r\n",
            "",
        )
        .await;
    assert_eq!(odd.status, 404);
    assert!(
        String::from_utf8(odd.body)
            .unwrap()
            .contains("&quot;&gt;&lt;script&gt;")
    );
    node.get("/watch/none").await.is_problem(404);
    let script = node.get("/assets/player.js").await;
    assert_eq!(
        script.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
}
