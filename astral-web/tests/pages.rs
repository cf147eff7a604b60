//! Pages, with what strangers wrote in them.

mod common;

use common::{Server, node, stream, submission};

#[tokio::test]
async fn what_a_stranger_writes_is_text_and_nothing_else() {
    let server = Server::start();
    let evil = "<script>alert(1)</script>\"'";
    let record = stream(1, 1, |r| {
        r.name = evil.into();
        r.description = Some(evil.into());
    });
    let id = record.value().id();
    server
        .post("/api/v1/streams", &submission(record.wire()))
        .await;
    server
        .post(
            "/api/v1/nodes",
            &submission(node(1, 1, "127.0.0.1:9000", None).wire()),
        )
        .await;
    for path in ["/".to_owned(), format!("/streams/{id}")] {
        let page = server.ask("GET", &path, &[], vec![]).await;
        assert_eq!(page.status, 200);
        assert!(
            page.header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        assert!(page.text().contains("alert(1)"), "{path} shows the name");
        assert!(!page.text().contains("<script"), "{path}");
        assert!(
            page.text().contains("by node 1"),
            "{path} names the publisher"
        );
    }
    let page = server
        .ask("GET", "/streams/script-alert-1-script", &[], vec![])
        .await;
    let watch = format!("href=\"http://127.0.0.1:8000/watch/{id}\"");
    assert!(page.text().contains(&watch));
    assert!(page.text().contains(&format!("astral:{id}@127.0.0.1:9000")));
}

#[tokio::test]
async fn pages_answer_people_and_unknown_ones_say_so_in_html() {
    let server = Server::start();
    for (path, status) in [
        ("/", 200),
        ("/publish", 200),
        ("/network", 200),
        ("/style.css", 200),
        ("/streams/none", 404),
        ("/none", 404),
    ] {
        let page = server.ask("GET", path, &[], vec![]).await;
        assert_eq!(page.status, status, "{path}");
        assert!(page.header("content-type").starts_with("text/"), "{path}");
    }
}
