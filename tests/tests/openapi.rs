//! The programs are as their own `/openapi.json` says, by a tool that is not ours.

use astral_tests::process::Launch;
use astral_tests::web::Web;
use astral_tests::{schemathesis, turn};

/// What answers for as long as one listens.
const ENDLESS: &str = "^/live/|^/ingest/|/events$";

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_as_its_openapi_document_says() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    node.api.publish("My Show").await;
    let token = Some(node.api.token.as_str());
    schemathesis::check(&node.api.url(""), token, ENDLESS, &[]).await;
    assert!(node.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn astral_web_is_as_its_openapi_document_says() {
    let _turn = turn::shared().await;
    let web = Web::start().await;
    // A record of the right form is still refused unless somebody has signed it.
    let leave_out = ["positive_data_acceptance"];
    schemathesis::check(&web.api().url(""), None, ENDLESS, &leave_out).await;
    let health = web.api().try_get("/health").await;
    assert_eq!(health.expect("it goes on").status, 200);
}
