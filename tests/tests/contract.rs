//! The node's HTTP API, row by row of the table in DESIGN §8: real nodes, spoken to as
//! any client would. The safety rules have a file of their own.

use astral_proto::api::{Stream, Ticket};
use astral_tests::ask::{Ask, has_fields};
use astral_tests::process::{Launch, Node};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use serde_json::Value;

const NODE: &str = "uuid:uuid name:text addresses:list role:node|supernode primary_supernode:uuid? \
    self:bool rtt_ms:number? upload_limit_bps:whole? upload_used_bps:whole? children:whole \
    version:text last_seen:time";
const STREAM: &str = "id:uuid slug:text name:text description:text unlisted:bool publisher:uuid \
    share:text state:live|waiting|paused|ended tracks:list bitrate_bps:whole started_at:time \
    viewers:whole epoch:whole local:object";
const LOCAL: &str = "receiving:bool parent:uuid? standby:uuid? hops:whole latency_ms:number \
    frames_received:whole frames_lost:whole switches:whole";
const TICKET: &str = "id:text stream:object source:uuid destination:uuid \
    state:offered|active|standby|ended reason:text? hops:whole path:list created_at:time \
    expires_at:time bytes:whole bitrate_bps:whole";
const SOMEBODY: &str = "8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f";

/// A node that publishes `My Show`, and one that knows it and publishes `Other`.
async fn pair() -> (Node, Node) {
    let node = Launch::new("node").limit("50mbit").start().await;
    let other = Launch::new("other").peer(&node).start().await;
    node.api.publish("My Show").await;
    other.api.publish("Other").await;
    for (at, slug) in [(&node, "other"), (&other, "my-show")] {
        until("the other's stream", s(15), async || {
            at.api.try_stream(slug).await
        })
        .await;
    }
    (node, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_shown_listed_and_forgotten() {
    let _turn = turn::shared().await;
    let (node, other) = pair().await;
    let ask = |line: &str| Ask::new(&node.api, line);
    let me = ask("GET /node").anybody().gives(200).await;
    has_fields(&me, NODE);
    assert_eq!(
        (&me["uuid"], &me["self"]),
        (&node.id().to_string().into(), &true.into())
    );
    assert_eq!(me["upload_limit_bps"], 50_000_000);

    let list = ask("GET /nodes").anybody().gives(200).await;
    has_fields(&list, "items:list next:text?");
    let uuids: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["uuid"])
        .collect();
    for (id, is_self) in [(node.id(), true), (other.id(), false)] {
        assert!(uuids.contains(&&id.to_string().into()), "{list}");
        let one = ask(&format!("GET /nodes/{id}")).anybody().gives(200).await;
        has_fields(&one, NODE);
        assert_eq!(one["self"], is_self);
    }
    for unknown in [SOMEBODY, "no-uuid"] {
        ask(&format!("GET /nodes/{unknown}")).refused(404).await;
        ask(&format!("DELETE /nodes/{unknown}")).refused(404).await;
    }
    ask(&format!("DELETE /nodes/{}", other.id()))
        .gives(204)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_published_paused_resumed_and_ended_by_their_node_only() {
    let _turn = turn::shared().await;
    let (node, _other) = pair().await;
    let ask = |line: &str| Ask::new(&node.api, line);
    let new = r#"{"name":"News at 9","description":"All of it","unlisted":false}"#;
    let answer = ask("POST /streams").json(new).send().await;
    assert_eq!(answer.status, 201, "{answer}");
    let made: Value = answer.json();
    has_fields(&made, STREAM);
    has_fields(&made["local"], LOCAL);
    has_fields(
        &made["ingest"],
        "rtmp_url:text? stream_key:text http_url:text",
    );
    assert_eq!(
        answer.headers["location"],
        format!("/api/v1/streams/{}", made["id"].as_str().unwrap())
    );
    for (field, value) in [
        ("name", "News at 9"),
        ("slug", "news-at-9"),
        ("description", "All of it"),
        ("state", "waiting"),
    ] {
        assert_eq!(made[field], value);
    }
    let key = made["ingest"]["stream_key"].as_str().unwrap();
    assert_eq!(
        made["ingest"]["rtmp_url"],
        format!("rtmp://{}/live", node.ready.rtmp.as_ref().unwrap())
    );
    assert_eq!(
        made["ingest"]["http_url"],
        format!("http://{}/ingest/{key}", node.ready.http)
    );
    assert!(
        made["share"]
            .as_str()
            .unwrap()
            .starts_with(&format!("astral:{}@", made["id"].as_str().unwrap()))
    );

    // The same name, also as spelt otherwise, is taken; another language is welcome.
    for taken in ["News at 9", "NEWS-AT-9"] {
        ask("POST /streams")
            .json(format!(r#"{{"name":"{taken}"}}"#))
            .refused(409)
            .await;
    }
    let chinese = ask("POST /streams")
        .json(r#"{"name":"直播"}"#)
        .gives(201)
        .await;
    assert!(
        chinese["slug"].as_str().unwrap().starts_with("stream~"),
        "{chinese}"
    );
    let html = ask("POST /streams")
        .json(r#"{"name":"<b onload=alert(1)>"}"#)
        .gives(201)
        .await;
    assert_eq!(html["slug"], "b-onload-alert-1");

    let path = "/streams/news-at-9";
    for (paused, state) in [(true, "paused"), (true, "paused"), (false, "waiting")] {
        let shown = ask(&format!("PATCH {path}"))
            .json(format!(r#"{{"paused":{paused}}}"#))
            .gives(200)
            .await;
        assert_eq!(shown["state"], state);
    }
    for line in ["PATCH /streams/other", "DELETE /streams/other"] {
        ask(line).json(r#"{"paused":true}"#).refused(403).await;
    }
    ask(&format!("DELETE {path}")).gives(204).await;
    ask(&format!("GET {path}")).refused(404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_found_by_slug_suffix_id_and_share_link_and_its_key_is_told_with_the_token_only()
 {
    let _turn = turn::shared().await;
    let (node, other) = pair().await;
    let stream = node.api.stream("my-show").await;
    let full = astral_proto::slug::full_slug(&stream.name, stream.id);
    for name in [
        "my-show".to_owned(),
        full,
        stream.id.to_string(),
        stream.share.clone(),
    ] {
        for at in [&node, &other] {
            let found = Ask::new(&at.api, format!("GET /streams/{name}"))
                .anybody()
                .gives(200)
                .await;
            assert_eq!(found["id"], stream.id.to_string(), "{name}");
            assert_eq!(found.get("ingest"), None);
        }
        for line in [
            format!("GET /streams/{name}/tickets"),
            format!("GET //watch/{name}"),
        ] {
            assert_eq!(
                Ask::new(&node.api, &line).send().await.status,
                200,
                "{line}"
            );
        }
    }
    assert!(node.api.stream("my-show").await.ingest.is_some());
    assert!(other.api.stream("my-show").await.ingest.is_none());

    // Known to nobody: the network is asked, for 2 s at most.
    let begin = std::time::Instant::now();
    Ask::new(&node.api, "GET /streams/nobody-has-this")
        .anybody()
        .refused(404)
        .await;
    let took = begin.elapsed();
    assert!(took >= s(1) && took < s(6), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlisted_stream_shows_nowhere_but_by_its_link() {
    let _turn = turn::shared().await;
    let (node, other) = pair().await;
    let made = Ask::new(&node.api, "POST /streams")
        .json(r#"{"name":"Hidden","unlisted":true}"#)
        .gives(201)
        .await;
    assert_eq!(made["unlisted"], true);
    let share = made["share"].as_str().unwrap();
    Ask::new(&other.api, "GET /streams/hidden")
        .refused(404)
        .await;
    let found = Ask::new(&other.api, format!("GET /streams/{share}"))
        .gives(200)
        .await;
    assert_eq!(found["id"], made["id"]);
    let listed = Ask::new(&other.api, "GET /streams").gives(200).await;
    assert!(!listed.to_string().contains("Hidden"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_got_kept_listed_revoked_and_given_back() {
    let _turn = turn::shared().await;
    let (node, other) = pair().await;
    let tickets = "/streams/my-show/tickets";
    let post = || Ask::new(&other.api, format!("POST {tickets}")).json("{}");
    // The stream waits for its encoder: the ticket is active all the same.
    let got = post().gives(201).await;
    has_fields(&got, TICKET);
    has_fields(&got["stream"], "id:uuid slug:text");
    assert_eq!(got["state"], "active");
    let (from, to) = (node.id().to_string(), other.id().to_string());
    assert_eq!(
        (&got["source"], &got["destination"]),
        (&from.clone().into(), &to.clone().into())
    );
    assert_eq!(
        (&got["path"], &got["hops"]),
        (&serde_json::json!([from, to]), &1.into())
    );
    assert_eq!(
        post().gives(200).await["id"],
        got["id"],
        "already receiving"
    );
    let own = Ask::new(&node.api, format!("POST {tickets}"))
        .json("{}")
        .gives(200)
        .await;
    assert_eq!(own, Value::Null, "one's own stream");

    let local = other.api.stream("my-show").await.local;
    assert!(
        local.receiving && local.parent == Some(node.id()),
        "{local:?}"
    );
    for at in [&node, &other] {
        for line in ["GET /tickets", "GET /streams/my-show/tickets"] {
            let list = Ask::new(&at.api, line).anybody().gives(200).await;
            assert_eq!(list["items"][0]["id"], got["id"], "{line}");
            assert_eq!(list["next"], Value::Null);
        }
    }
    assert_eq!(node.api.node().await.children, 1);

    let id = got["id"].as_str().unwrap();
    for wrong in [
        format!("{tickets}/0000000000000000"),
        format!("{tickets}/x"),
        format!("/streams/other/tickets/{id}"),
    ] {
        Ask::new(&node.api, format!("DELETE {wrong}"))
            .refused(404)
            .await;
    }
    Ask::new(&node.api, format!("DELETE {tickets}/{id}"))
        .gives(204)
        .await;
    until("the ticket's end", s(10), async || {
        let left: Vec<Ticket> = node.api.tickets("my-show").await;
        check(
            left.iter().all(|ticket| ticket.id != id),
            format!("{left:?}"),
        )
    })
    .await;
    let stop = || Ask::new(&other.api, "DELETE /streams/my-show/ticket");
    stop().gives(204).await;
    stop().refused(404).await;
    Ask::new(&other.api, "POST /streams/none/tickets")
        .json("{}")
        .refused(404)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_anywhere_watching_is_503_with_the_reason_and_when_to_try_again() {
    let _turn = turn::shared().await;
    let publisher = Launch::new("publisher").limit("0").start().await;
    publisher.api.publish("Full House").await;
    let viewer = Launch::new("viewer").peer(&publisher).start().await;
    until("the stream", s(15), async || {
        viewer.api.try_stream("full-house").await
    })
    .await;
    let begin = std::time::Instant::now();
    let ask = Ask::new(&viewer.api, "POST /streams/full-house/tickets").json("{}");
    let answer = ask.refused(503).await;
    assert!(begin.elapsed() < s(9), "5 s, not {:?}", begin.elapsed());
    assert!(answer.to_string().contains("nobody"), "{answer}");
    let local = viewer.api.stream("full-house").await.local;
    assert!(
        !local.receiving,
        "what was refused is not gone on with: {local:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_in_order_of_name_then_id_page_by_page() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    for name in ["b", "a", "d", "c", "e"] {
        node.api.publish(name).await;
    }
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let page = Ask::new(&node.api, format!("GET /streams?limit=2{after}"))
            .anybody()
            .gives(200)
            .await;
        let items = page["items"].as_array().unwrap();
        names.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        assert_eq!(items.len(), 2);
        after = format!("&after={next}");
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    for list in ["nodes", "streams", "tickets", "streams/a/tickets"] {
        let whole = Ask::new(&node.api, format!("GET /{list}?limit=1000"))
            .gives(200)
            .await;
        has_fields(&whole, "items:list next:text?");
        for wrong in ["limit=0", "limit=1001", "limit=x", "after=x", "colour=red"] {
            Ask::new(&node.api, format!("GET /{list}?{wrong}"))
                .refused(422)
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_with_the_written_status() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    node.api.publish("My Show").await;
    let ask = |line: &str| Ask::new(&node.api, line);
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(101));
    let huge = format!(r#"{{"name":"{}"}}"#, "x".repeat(100_000));
    let rows = [
        (ask("POST /streams").json("{"), 400),
        (ask("POST /streams").json(""), 400),
        (ask("GET /streams/%ff"), 400),
        (ask("POST /streams").anybody().json(r#"{"name":"x"}"#), 401),
        (ask("DELETE /node").anybody(), 401),
        (
            ask("GET /node")
                .anybody()
                .header("authorization", "Bearer wrong"),
            401,
        ),
        (
            ask("GET /node").header("origin", "https://evil.example"),
            403,
        ),
        (ask("GET /node").header("origin", "null"), 403),
        (ask("GET /node").header("sec-fetch-site", "cross-site"), 403),
        (ask("PUT //ingest/unknown-key").typed("video/mp4", "x"), 403),
        (
            ask("POST /streams/my-show/tickets").json(format!(r#"{{"destination":"{SOMEBODY}"}}"#)),
            404,
        ),
        (ask("GET /nothing"), 404),
        (ask("GET //nothing"), 404),
        (ask("GET /streams/a/b/c/d"), 404),
        (ask("PUT /streams").json("{}"), 405),
        (ask("POST /node").json("{}"), 405),
        (ask("DELETE //health"), 405),
        (ask("POST /streams").json(r#"{"name":"My Show"}"#), 409),
        (ask("POST /streams").json(huge), 413),
        (
            ask("POST /ping").typed("application/octet-stream", vec![0; 8 * 1024 * 1024 + 1]),
            413,
        ),
        (ask("GET /ping?bytes=8388609"), 413),
        (
            ask("POST /streams").typed("text/plain", r#"{"name":"x"}"#),
            415,
        ),
        (
            ask("PATCH /settings").typed("application/x-www-form-urlencoded", "name=x"),
            415,
        ),
        (ask("GET /node").header("host", "evil.example"), 421),
        (ask("POST /streams").json("{}"), 422),
        (ask("POST /streams").json("[]"), 422),
        (
            ask("POST /streams").json(r#"{"name":"x","colour":"red"}"#),
            422,
        ),
        (ask("POST /streams").json(r#"{"name":""}"#), 422),
        (ask("POST /streams").json(long), 422),
        (ask("PATCH /streams/my-show").json("{}"), 422),
        (
            ask("POST /streams/my-show/tickets").json(r#"{"destination":"x"}"#),
            422,
        ),
        (ask("GET /ping?bytes=x"), 422),
        (ask("PATCH /settings").json(r#"{"colour":"red"}"#), 422),
        (ask("GET //live/my-show/stream.mp4?target_ms=x"), 422),
    ];
    for (ask, status) in rows {
        let answer = ask.refused(status).await;
        match status {
            401 => assert_eq!(
                answer.headers["www-authenticate"],
                "Bearer realm=\"astral-node\""
            ),
            405 => assert!(answer.headers.contains_key("allow"), "{answer}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_pings_and_settings_answer_as_written() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").option("--name", "Told").start().await;
    let ask = |line: &str| Ask::new(&node.api, line);
    for probe in ["GET //health", "GET //ready"] {
        ask(probe).anybody().gives(200).await;
    }
    let openapi = ask("GET //openapi.json").anybody().gives(200).await;
    has_fields(&openapi, "openapi:text paths:object components:object");

    let ping = ask("GET /ping?bytes=100000").anybody().send().await;
    assert_eq!((ping.status.as_u16(), ping.body.len()), (200, 100_000));
    assert!(ask("GET /ping").anybody().send().await.body.is_empty());
    let took = ask("POST /ping")
        .anybody()
        .typed("application/octet-stream", vec![7; 100_000])
        .gives(200)
        .await;
    has_fields(&took, "bytes:whole elapsed_ms:whole");
    assert_eq!(took["bytes"], 100_000);

    let settings = ask("GET /settings").anybody().gives(200).await;
    for (key, setting) in settings.as_object().unwrap() {
        has_fields(
            setting,
            "source:default|file|saved|environment|flag changeable:bool",
        );
        assert!(setting.get("value").is_some(), "{key}");
    }
    assert_eq!(
        settings["name"],
        serde_json::json!({"value": "Told", "source": "flag", "changeable": false})
    );
    ask("PATCH /settings")
        .json(r#"{"name":"Saved"}"#)
        .refused(409)
        .await;
    let changed = ask("PATCH /settings")
        .json(r#"{"upstream_limit":"5mbit"}"#)
        .gives(200)
        .await;
    assert_eq!(
        changed["upstream_limit"],
        serde_json::json!({"value": 5_000_000, "source": "saved", "changeable": true})
    );
    let node = node.restart().await;
    assert_eq!(
        node.api.node().await.upload_limit_bps,
        Some(5_000_000),
        "kept across a restart"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_a_snapshot_then_changes_with_ids() {
    let _turn = turn::shared().await;
    let (node, other) = pair().await;
    let mut events = astral_tests::events::Events::open(&node.api).await;
    let me = node.id().to_string();
    events
        .until("node", |e| {
            e["change"] == "added" && e["node"]["uuid"] == *me
        })
        .await;
    events
        .until("stream", |e| {
            e["change"] == "added" && e["stream"]["slug"] == "my-show"
        })
        .await;
    assert_eq!(other.api.watch("my-show").await.status, 201);
    let ticket = events.until("ticket", |e| e["change"] == "added").await;
    has_fields(&ticket["ticket"], TICKET);
    Ask::new(&node.api, "PATCH /streams/my-show")
        .json(r#"{"paused":true}"#)
        .gives(200)
        .await;
    let stream = events
        .until("stream", |e| {
            e["change"] == "updated" && e["stream"]["state"] == "paused"
        })
        .await;
    has_fields(&stream["stream"], STREAM);
    Ask::new(&other.api, "DELETE /streams/my-show/ticket")
        .gives(204)
        .await;
    events.until("ticket", |e| e["change"] == "removed").await;
    Ask::new(&node.api, "DELETE /streams/my-show")
        .gives(204)
        .await;
    events
        .until("stream", |e| {
            e["change"] == "removed" && e["stream"]["slug"] == "my-show"
        })
        .await;
    events.comment().await;
    let ids = events.ids();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert_eq!(ids.len(), events.count(), "every event has an id");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_shut_down_by_delete() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    let stream: Stream = node.api.publish("My Show").await.0;
    assert_eq!(stream.publisher, node.id());
    Ask::new(&node.api, "DELETE /node").gives(202).await;
    assert_eq!(node.exit(s(5)).await.code(), Some(0));
    assert!(!node.data_dir().join("node.json").exists());
}
