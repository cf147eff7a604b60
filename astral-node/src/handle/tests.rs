use std::future::poll_fn;
use std::pin::pin;

use tempfile::TempDir;

use super::*;
use crate::node::Node;

/// A running node; the folder goes with the value.
async fn running() -> (Handle, TempDir) {
    let dir = TempDir::new().unwrap();
    let node = Node::load(Config::default_in(dir.path())).await.unwrap();
    let handle = node.handle();
    tokio::spawn(node.run(std::future::pending()));
    (handle, dir)
}

fn show() -> api::NewStream {
    api::NewStream {
        name: "Show".into(),
        description: None,
        unlisted: false,
    }
}

#[tokio::test(start_paused = true)]
async fn looking_for_an_unknown_stream_leaves_the_node_in_peace() {
    let (handle, _dir) = running().await;
    handle.publish(show()).await.unwrap();
    let mut looking = pin!(handle.resolve("none"));
    let mut looks = 0;
    let found = poll_fn(|cx| {
        looks += 1;
        assert!(looks < 500, "it asks without a pause");
        looking.as_mut().poll(cx)
    });
    assert!(matches!(found.await, Err(ApiError::Unknown(_))));
}
