use std::future::poll_fn;
use std::pin::pin;

use astral_proto::record::StreamState;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::node::Node;
use crate::store::LiveEvent;

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

#[tokio::test]
async fn two_streams_made_at_once_do_not_get_one_name() {
    let (handle, _dir) = running().await;
    let (one, two) = tokio::join!(handle.publish(show()), handle.publish(show()));
    let taken = Err(ApiError::NameTaken("Show".into()));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert!(one == taken || two == taken);
}

#[tokio::test]
async fn a_stream_is_made_whole_though_whoever_asked_has_gone() {
    let (handle, _dir) = running().await;
    {
        let mut asked = pin!(handle.publish(show()));
        assert!(futures_util::poll!(&mut asked).is_pending());
    }
    let made = async {
        while handle.streams().await.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), made)
        .await
        .expect("it is made");
}

#[tokio::test(start_paused = true)]
async fn opening_a_player_does_not_take_back_what_the_encoder_did() {
    let (handle, _dir) = running().await;
    let id = handle.publish(show()).await.unwrap().id;
    // The record that says so is signed a moment later.
    handle.registry().set_paused(id, true);
    let start = StartAt::Live { target_ms: 0 };
    let mut live = handle.open_live(id, start).await.unwrap();
    let state = LiveEvent::State(StreamState::Paused);
    assert_eq!(live.reader.next().await, state);
}
