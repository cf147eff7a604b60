use astral_proto::link::PeerAddress;

use super::*;
use crate::storage::RememberedSlug;

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

fn peer_of(handle: &Handle) -> PeerAddress {
    handle.ready().quic.parse().unwrap()
}

async fn is_connected(handle: &Handle, node: NodeId) -> bool {
    let nodes = handle.nodes().await;
    nodes.iter().any(|n| n.uuid == node && n.connected)
}

/// A configuration in `dir`, with these nodes to bootstrap from.
fn config(dir: &TempDir, peers: Vec<PeerAddress>) -> Config {
    Config {
        peers,
        ..Config::default_in(dir.path())
    }
}

#[tokio::test]
async fn a_viewer_takes_up_what_it_was_asked_for_until_it_is_told_to_stop() {
    let (publisher, _publisher_dir) = running().await;
    let id = publisher.publish(show()).await.unwrap().id;
    let dir = TempDir::new().unwrap();
    for_a_while(config(&dir, vec![peer_of(&publisher)]), async |viewer| {
        viewer.resolve(&id.to_string()).await.unwrap();
        let watched = viewer.watch(id).await.unwrap();
        assert!(matches!(watched, Watched::New(_)));
    })
    .await;
    // Nobody tells it of the publisher, or that the stream is wanted.
    for_a_while(config(&dir, vec![]), async |viewer| {
        until("a ticket", async || {
            viewer.intake_ticket(id).await.is_some()
        })
        .await;
        viewer.stop(id).await.unwrap();
        assert!(viewer.inner.storage.wanted().unwrap().is_empty());
    })
    .await;
    for_a_while(config(&dir, vec![]), async |viewer| {
        assert!(lock(&viewer.inner.state.wanted).is_empty());
    })
    .await;
}

#[tokio::test]
async fn peers_are_found_again_without_being_told_of_them() {
    let (peer, _peer_dir) = running().await;
    let dir = TempDir::new().unwrap();
    for_a_while(config(&dir, vec![peer_of(&peer)]), async |node| {
        until("the peer's row", async || {
            !node.inner.storage.peers().unwrap().is_empty()
        })
        .await;
    })
    .await;
    for_a_while(config(&dir, vec![]), async |node| {
        until("the peer", async || is_connected(node, peer.id()).await).await;
        node.forget(peer.id()).await.unwrap();
        assert!(node.inner.storage.peers().unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_slug_means_what_it_meant_before_the_restart() {
    let (one, _one_dir) = running().await;
    let (two, _two_dir) = running().await;
    let first = one.publish(show()).await.unwrap().id;
    let second = two.publish(show()).await.unwrap().id;
    let dir = TempDir::new().unwrap();
    let slug = "show".to_owned();
    for_a_while(config(&dir, vec![peer_of(&one)]), async |node| {
        assert_eq!(node.resolve(&slug).await, Ok(first));
        until("the slug's row", async || {
            !node.inner.storage.slugs().unwrap().is_empty()
        })
        .await;
        let kept = node.inner.storage.slugs().unwrap();
        assert_eq!((&kept[0].slug, kept[0].stream), (&slug, first));
    })
    .await;
    // This time the other one is heard of first.
    for_a_while(config(&dir, vec![peer_of(&two)]), async |node| {
        node.resolve(&second.to_string()).await.unwrap();
        for target in targets(&peer_of(&one)) {
            node.tell(Event::Bootstrap { target }).await;
        }
        node.resolve(&first.to_string()).await.unwrap();
        assert_eq!(node.resolve(&slug).await, Ok(first));
        let kept = node.inner.storage.slugs().unwrap();
        let row = |slug: &RememberedSlug| slug.stream;
        assert_eq!(kept.iter().map(row).collect::<Vec<_>>(), [first]);
    })
    .await;
}
