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

/// Runs a node until it has been asked and told, and ended in good order.
async fn for_a_while<T>(config: Config, work: impl AsyncFnOnce(&Handle) -> T) -> T {
    let node = Node::load(config).await.unwrap();
    let handle = node.handle();
    let running = tokio::spawn(node.run(std::future::pending()));
    let done = work(&handle).await;
    handle.shutdown();
    running.await.unwrap().unwrap();
    done
}

fn patch<const N: usize>(changes: [(&str, Option<api::SettingValue>); N]) -> api::SettingsPatch {
    let changes = changes.map(|(key, value)| (key.to_owned(), value));
    api::SettingsPatch(changes.into())
}

#[tokio::test]
async fn changed_settings_hold_at_once_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let wish = patch([
        (
            "upstream_limit",
            Some(api::SettingValue::Text("3mbit".into())),
        ),
        ("name", Some(api::SettingValue::Text("Renamed".into()))),
    ]);
    let told = for_a_while(Config::default_in(dir.path()), async |handle| {
        let told = handle.change_settings(wish).await.unwrap();
        assert_eq!(handle.uplink().limit(), Some(3_000_000));
        let promised = handle
            .inner
            .inbox
            .inspect(|overlay, _| (overlay.limit_bps(), overlay.own_name()));
        let promised = promised.await.unwrap();
        assert_eq!(promised, (Some(3_000_000), Some("Renamed".to_owned())));
        assert_eq!(handle.node().await.name, "Renamed");
        told
    });
    let told = told.await;
    assert_eq!(told.0["name"].source, api::Source::Saved);

    for_a_while(Config::default_in(dir.path()), async |handle| {
        assert_eq!(handle.settings(), told);
        assert_eq!(handle.uplink().limit(), Some(3_000_000));
        let reset = patch([("upstream_limit", None)]);
        let told = handle.change_settings(reset).await.unwrap();
        assert_eq!(told.0["upstream_limit"].source, api::Source::Default);
        assert_eq!(handle.uplink().limit(), Some(8_000_000));
    })
    .await;
    for_a_while(Config::default_in(dir.path()), async |handle| {
        assert_eq!(handle.uplink().limit(), Some(8_000_000));
        assert_eq!(handle.node().await.name, "Renamed");
    })
    .await;
}

#[tokio::test]
async fn a_setting_that_a_flag_decides_is_a_conflict() {
    let dir = TempDir::new().unwrap();
    let mut config = Config::default_in(dir.path());
    config.sources.insert("name", api::Source::Flag);
    for_a_while(config, async |handle| {
        let wish = patch([("name", Some(api::SettingValue::Text("x".into())))]);
        let refused = handle.change_settings(wish).await;
        assert!(matches!(refused, Err(ApiError::Conflict(_))), "{refused:?}");
    })
    .await;
}

mod resume;
