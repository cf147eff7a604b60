//! Nodes behind firewalls that drop whatever was not asked for, each on a computer of
//! its own (a network namespace).

use astral_tests::ffmpeg::Clip;
use astral_tests::netns::{FORWARDED, Net, Node, allowed, grows, move_to, serve_nat_pmp};
use astral_tests::wait::{check, s, until};
use serde_json::Value;

/// Bytes of a recording that are more than a catalog and a keyframe.
const SOME: u64 = 60_000;
const SUPERNODE: &str = "203.0.113.1:8000";

async fn supernode(net: &mut Net, options: &[&str]) -> Node {
    let node = Node::start(&net.host(1, false), options).await;
    until("it is a supernode", s(30), async || {
        let seen = node.json(&["status"]).to_string();
        check(seen.contains("\"supernode\""), seen)
    })
    .await;
    node
}

async fn node(net: &mut Net, number: u8, walled: bool) -> Node {
    Node::start(&net.host(number, walled), &["--peer", SUPERNODE]).await
}

fn publish(node: &mut Node, name: &str) {
    let clip = Clip::small(20).path();
    node.astral_on(&["publish", name, &clip.to_string_lossy(), "--loop"]);
}

async fn reach_is(node: &Node, state: &str) {
    until(state, s(60), async || {
        let seen = node.json(&["status"]).to_string();
        check(seen.contains(&format!("\"state\":\"{state}\"")), seen)
    })
    .await;
}

async fn lists(node: &Node, slug: &str) {
    until("the stream is listed", s(30), async || {
        let seen = node.json(&["streams"]).to_string();
        check(seen.contains(slug), seen)
    })
    .await;
}

/// Who feeds a node.
fn parent(node: &Node, slug: &str) -> Option<String> {
    let streams = node.json(&["streams"]);
    let items = streams.get("items").unwrap_or(&streams).as_array()?.clone();
    let stream = items.into_iter().find(|stream| stream["slug"] == slug)?;
    stream["local"]["parent"].as_str().map(str::to_owned)
}

fn uuid(node: &Node) -> Option<String> {
    let status = node.json(&["status"]);
    let node: &Value = status.get("node").unwrap_or(&status);
    node["uuid"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn walled_publisher_is_watched_by_three_walled_viewers_through_one_supernode() {
    if !allowed() {
        return;
    }
    let mut net = Net::new();
    let supernode = supernode(&mut net, &["--upstream-limit", "50mbit"]).await;
    let mut publisher = node(&mut net, 2, true).await;
    publish(&mut publisher, "Walled");
    reach_is(&publisher, "unreachable").await;
    reach_is(&supernode, "reachable").await;
    let mut viewers = Vec::new();
    for number in 3..6 {
        viewers.push(node(&mut net, number, true).await);
    }
    let mut files = Vec::new();
    for viewer in &mut viewers {
        lists(viewer, "walled").await;
        files.push(viewer.record("walled"));
    }
    for file in &files {
        grows("the video arrives", file, SOME).await;
    }
    for file in &files {
        grows("and goes on", file, SOME).await;
    }
    let tickets = publisher.json(&["tickets"]).to_string();
    let copies = tickets.matches("\"active\"").count();
    println!("the publisher sends {copies} copies");
    // One to the supernode, or one to each viewer that it could be introduced to.
    assert!((1..=4).contains(&copies), "{tickets}");
}

#[tokio::test(flavor = "multi_thread")]
async fn walled_publisher_dials_a_viewer_where_the_supernode_has_no_upload_to_spare() {
    if !allowed() {
        return;
    }
    let mut net = Net::new();
    let options = ["--upstream-limit", "200kbit", "--supernode", "always"];
    let _supernode = supernode(&mut net, &options).await;
    let mut publisher = node(&mut net, 2, true).await;
    publish(&mut publisher, "Walled");
    let mut viewer = node(&mut net, 3, false).await;
    lists(&viewer, "walled").await;
    let file = viewer.record("walled");
    grows("the video arrives", &file, SOME).await;
    assert_eq!(parent(&viewer, "walled"), uuid(&publisher));
}

#[tokio::test(flavor = "multi_thread")]
async fn viewer_whose_address_changes_goes_on_watching() {
    if !allowed() {
        return;
    }
    let mut net = Net::new();
    let _supernode = supernode(&mut net, &["--upstream-limit", "50mbit"]).await;
    let mut publisher = node(&mut net, 2, false).await;
    publish(&mut publisher, "Moving");
    let host = net.host(3, false);
    let mut viewer = Node::start(&host, &["--peer", SUPERNODE]).await;
    lists(&viewer, "moving").await;
    let file = viewer.record("moving");
    grows("the video arrives", &file, SOME).await;
    move_to(&host, 33);
    until("the node says where it is now", s(30), async || {
        let seen = viewer.json(&["status"]).to_string();
        check(seen.contains("203.0.113.33"), seen)
    })
    .await;
    grows("the video goes on", &file, 4 * SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the router's mapped port is not found out about yet: cause unknown"]
async fn node_behind_a_router_is_reached_by_the_port_that_the_router_maps() {
    if !allowed() {
        return;
    }
    let mut net = Net::new();
    let _supernode = supernode(&mut net, &[]).await;
    let (router, host) = net.behind_router(9);
    serve_nat_pmp(&router, [203, 0, 113, 9]);
    let node = Node::start(&host, &["--peer", SUPERNODE]).await;
    reach_is(&node, "reachable").await;
    let status = node.json(&["status"]).to_string();
    let mapped = format!("\"mapped\":\"203.0.113.9:{FORWARDED}\"");
    assert!(status.contains(&mapped), "{status}");
}
