//! The harness notices what it is there to notice.

use std::panic::catch_unwind;

use astral_tests::cdp::Browser;
use astral_tests::ffmpeg::{Clip, assert_tail, packets};
use astral_tests::places::scratch;
use astral_tests::player::Seen;
use astral_tests::proxy::CountingProxy;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use serde_json::json;
use tokio::net::UdpSocket;

#[test]
fn one_lost_doubled_or_foreign_packet_is_noticed() {
    let sent = packets(&Clip::small(12).path(), "v:0");
    assert_eq!(sent.len(), Clip::small(12).frames() as usize);
    assert_eq!(assert_tail("all", &sent, &sent), 0);
    assert_eq!(assert_tail("late", &sent, &sent[30..]), 30);
    let spoilt = |spoil: fn(&mut Vec<String>)| {
        let mut came = sent.clone();
        spoil(&mut came);
        let sent = sent.clone();
        catch_unwind(move || assert_tail("spoilt", &sent, &came)).is_err()
    };
    assert!(spoilt(|came| drop(came.remove(100))), "a packet is missing");
    assert!(
        spoilt(|came| drop(came.pop())),
        "the last packet is missing"
    );
    assert!(
        spoilt(|came| came.insert(100, came[100].clone())),
        "a packet came twice"
    );
    assert!(
        spoilt(|came| came.swap(100, 101)),
        "two packets changed places"
    );
    assert!(
        spoilt(|came| came[5] = "other".into()),
        "a packet was altered"
    );
    assert!(spoilt(Vec::clear), "nothing came");
}

#[test]
fn frame_numbers_are_judged_one_by_one() {
    let seen = json!({"numbers": [1, 2, 4, 5, 5, 9, 8], "presented": [1, 2, 3, 4, 5, 6, 9], "unreadable": 0});
    let seen: Seen = serde_json::from_value(seen).expect("what the page gives");
    let order = seen.order();
    assert_eq!((order.read, order.single_misses, order.repeated), (7, 1, 1));
    assert_eq!((order.backwards, order.missed_calls), (1, 2));
    assert_eq!(order.holes, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_counts_what_the_node_behind_it_sends() {
    let node = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let proxy = CountingProxy::before(&node.local_addr().expect("bound").to_string()).await;
    let caller = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    caller
        .send_to(&[0; 100], proxy.address)
        .await
        .expect("sent");
    let mut datagram = [0; 2000];
    let (len, way_back) = node.recv_from(&mut datagram).await.expect("it arrives");
    assert_eq!(len, 100);
    node.send_to(&[0; 1200], way_back).await.expect("sent");
    assert_eq!(caller.recv(&mut datagram).await.expect("it arrives"), 1200);
    let most = proxy.windows(s(1), s(2)).into_iter().max();
    assert_eq!(most, Some(1200), "only the node's own bytes count");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_plays_a_clip_and_its_frame_numbers_can_be_read() {
    let _turn = turn::alone().await;
    let clip = Clip::hd(12).path();
    let mut browser = Browser::start().await;
    browser.go(&format!("file://{}", clip.display())).await;
    let _: bool = browser
        .evaluate("document.querySelector('video').id = 'video', document.querySelector('video').loop = false, true")
        .await;
    let mut player = astral_tests::player::Player { browser };
    player.reads_frames().await;
    let _: bool = player
        .browser
        .evaluate("document.getElementById('video').play().then(() => true)")
        .await;
    until("frames", s(30), async || {
        let seen = player.seen().await;
        check(seen.numbers.len() > 200, format!("{seen:?}"))
    })
    .await;
    let seen = player.seen().await;
    println!("{}", seen.order());
    assert_eq!(
        (seen.unreadable, seen.order().backwards),
        (0, 0),
        "{seen:?}"
    );
    assert!(seen.order().miss_percent() < 10.0, "{}", seen.order());
    assert!(player.audio_bytes().await > 10_000);
    player
        .browser
        .screenshot(&scratch().join("harness.png"))
        .await;
}
