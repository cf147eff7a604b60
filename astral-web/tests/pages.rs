//! Pages, with what strangers wrote in them.

mod common;

use astral_proto::record::{NodeLoad, NodeRecord, SignedNode, StreamLoad};
use common::{Server, key, node_of, stream, submission};

/// A supernode's record, changed.
fn supernode(number: u32, change: impl FnOnce(&mut NodeRecord)) -> SignedNode {
    let key = key(number);
    let mut record = node_of(&key, 1, 1, "127.0.0.1:9000", None).value().clone();
    change(&mut record);
    SignedNode::sign(record, &key)
}

async fn submit_node(server: &Server, record: &SignedNode) {
    let body = submission(record.wire());
    let answer = server.post("/api/v1/nodes", &body).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn what_a_stranger_writes_is_text_and_nothing_else() {
    let server = Server::start();
    let evil = "<script>alert(1)</script>\"'";
    let publisher = supernode(9, |record| record.name = Some(evil.into()));
    let record = stream(1, 1, |r| {
        r.name = evil.into();
        r.description = Some(evil.into());
        r.publisher = publisher.value().id();
    });
    let id = record.value().id();
    submit_node(&server, &publisher).await;
    server
        .post("/api/v1/streams", &submission(record.wire()))
        .await;
    for path in [
        "/".to_owned(),
        "/?q=%3Cscript%3Ealert(1)".to_owned(),
        "/network".to_owned(),
        format!("/streams/{id}"),
        "/streams/%3Cscript%3Ealert(1)%3C%2Fscript%3E".to_owned(),
    ] {
        let page = server.ask("GET", &path, &[], vec![]).await;
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
        assert!(!page.text().contains("<script>"), "{path}");
        assert!(!page.text().contains("\"'"), "{path}");
        if page.status == 200 {
            assert!(page.text().contains("alert(1)"), "{path} shows the name");
        }
    }
    let page = server
        .ask("GET", "/streams/script-alert-1-script", &[], vec![])
        .await;
    let watch = format!("href=\"http://127.0.0.1:8000/watch/{id}?from=http%3A%2F%2F127.0.0.1%3A");
    assert!(page.text().contains(&watch), "{}", page.text());
    assert!(page.text().contains(&format!("astral:{id}@127.0.0.1:9000")));
}

#[test]
fn templates_escape_everything_and_bring_no_code_of_their_own() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/templates");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if path.extension().is_none_or(|kind| kind != "html") {
            continue;
        }
        for wrong in [
            "|safe", "| safe", "style=", " onclick", " onload", "<style", "<script>",
        ] {
            assert!(!text.contains(wrong), "{}: {wrong}", path.display());
        }
    }
}

#[tokio::test]
async fn pages_answer_people_and_unknown_ones_say_so_in_html() {
    let server = Server::start();
    for (path, status) in [
        ("/", 200),
        ("/publish", 200),
        ("/network", 200),
        ("/style.css", 200),
        ("/site.js", 200),
        ("/streams/none", 404),
        ("/none", 404),
    ] {
        let page = server.ask("GET", path, &[], vec![]).await;
        assert_eq!(page.status, status, "{path}");
        assert!(page.header("content-type").starts_with("text/"), "{path}");
    }
    let style = server.ask("GET", "/style.css", &[], vec![]).await;
    let tag = [("if-none-match", style.header("etag"))];
    let again = server.ask("GET", "/style.css", &tag, vec![]).await;
    assert_eq!(again.status, 304);
}

#[tokio::test]
async fn network_shows_what_supernodes_report_and_says_where_they_do_not() {
    let server = Server::start();
    let show = stream(1, 1, |r| r.viewers = Some(120));
    let id = show.value().id();
    server
        .post("/api/v1/streams", &submission(show.wire()))
        .await;
    submit_node(&server, &supernode(1, |_| ())).await;
    let page = server.ask("GET", "/network", &[], vec![]).await;
    assert!(page.text().contains("No supernode reports how busy it is"));
    let page = server.ask("GET", "/streams/my-show", &[], vec![]).await;
    assert!(page.text().contains("No supernode reports on this stream"));
    let busy = supernode(2, |record| {
        record.load = Some(NodeLoad {
            registered: 75,
            room: 25,
            children: 9,
            streams: vec![StreamLoad {
                stream: id,
                viewers: 80,
                children: 7,
                depth: 3,
                delay_ms: 140,
            }],
        });
    });
    submit_node(&server, &busy).await;
    let page = server.ask("GET", "/network", &[], vec![]).await;
    for words in [
        "75 % of 100",
        "3 hops",
        "140 ms behind",
        "75 nodes of 100 places",
    ] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let page = server.ask("GET", "/streams/my-show", &[], vec![]).await;
    let words = "80 watching, 3 hops from the publisher, 140 ms behind it";
    assert!(page.text().contains(words), "{}", page.text());
}

#[tokio::test]
async fn network_of_a_thousand_nodes_is_one_page_without_anybodys_address() {
    let server = Server::start();
    for number in 0..1_000u32 {
        let record = supernode(number, |record| {
            record.name = Some(format!("node {number}"));
            record.load = Some(NodeLoad {
                registered: number % 90,
                room: 10,
                children: 3,
                streams: Vec::new(),
            });
        });
        submit_node(&server, &record).await;
    }
    let page = server.ask("GET", "/network", &[], vec![]).await;
    assert_eq!(page.status, 200);
    assert!(page.body.len() < 200_000, "{}", page.body.len());
    assert!(!page.text().contains("9000"), "an address is shown");
}

#[tokio::test]
async fn node_that_plays_for_strangers_is_framed_only_on_request_and_only_if_its_url_is_plain() {
    let server = Server::start();
    let show = stream(1, 1, |_| ());
    server
        .post("/api/v1/streams", &submission(show.wire()))
        .await;
    let trick = supernode(3, |record| {
        record.public_http = Some("https://a.example;script-src *".into());
    });
    submit_node(&server, &trick).await;
    let page = server.ask("GET", "/streams/my-show", &[], vec![]).await;
    assert!(!page.text().contains("Play without a node</a>"));
    assert!(!page.header("content-security-policy").contains("a.example"));
    let host = supernode(4, |record| {
        record.public_http = Some("https://play.example:8443/".into());
    });
    submit_node(&server, &host).await;
    let page = server.ask("GET", "/streams/my-show", &[], vec![]).await;
    assert!(page.text().contains("Play without a node</a>"));
    assert!(!page.text().contains("<iframe class"));
    assert!(
        !page
            .header("content-security-policy")
            .contains("play.example")
    );
    let path = format!("/streams/my-show?play={}", host.value().id());
    let page = server.ask("GET", &path, &[], vec![]).await;
    let id = show.value().id();
    let source = format!("src=\"https://play.example:8443/watch/{id}?embed");
    assert!(page.text().contains(&source), "{}", page.text());
    let policy = page.header("content-security-policy");
    assert!(policy.contains("frame-src https://play.example:8443 http://127.0.0.1:8000;"));
}

#[tokio::test]
async fn search_finds_streams_by_their_name() {
    let server = Server::start();
    for (seed, name) in [(1, "Evening news"), (2, "Cat cam")] {
        let record = stream(seed, 1, |r| r.name = name.into());
        server
            .post("/api/v1/streams", &submission(record.wire()))
            .await;
    }
    let page = server.ask("GET", "/?q=NEWS", &[], vec![]).await;
    assert!(page.text().contains("Evening news") && !page.text().contains("Cat cam"));
    let page = server.ask("GET", "/?q=none", &[], vec![]).await;
    assert!(page.text().contains("No stream is called"));
}
