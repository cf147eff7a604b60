//! Nodes that know nothing but the address of an astral-web, all real processes.

use std::time::{Duration, Instant};

use astral_proto::api::{List, NewStream, Role, Stream};
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::places;
use astral_tests::process::{Launch, Node};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use astral_tests::web::Web;
use hyper::Method;

async fn knows(node: &Node, stream: &Stream) {
    until("the stream is listed", s(20), async || {
        node.api.try_stream(&stream.id.to_string()).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_find_each_other_through_the_web_alone_and_survive_its_loss() {
    let _turn = turn::shared().await;
    let web = Web::start().await;
    let publisher = web.launch("publisher").limit("100mbit").start().await;
    let (stream, ingest) = publisher.api.publish("By the web").await;
    let _encoder = Encoder::rtmp(Clip::small(60), &ingest);
    let first = web.launch("first").start().await;
    let second = web.launch("second").start().await;
    web.lists(&stream).await;
    for node in [&first, &second] {
        knows(node, &stream).await;
        join(node, &stream).await;
        flows(node, &stream).await;
    }
    let mut supernodes = 0;
    for node in [&publisher, &first, &second] {
        supernodes += usize::from(node.api.node().await.role == Role::Supernode);
    }
    assert!(supernodes > 0, "one of them is a supernode");

    let web = web.lose().await;
    web.lists(&stream).await;
    flows(&second, &stream).await;
    let late = web.launch("late").start().await;
    knows(&late, &stream).await;
    join(&late, &stream).await;
    flows(&late, &stream).await;
}

/// How long something may take: what is promised on a quiet machine, more on a busy one.
fn promised(seconds: u64) -> Duration {
    if places::strict() {
        s(seconds)
    } else {
        s(seconds * 6)
    }
}

/// Waits until the stream is listed at every node, and live on the page.
async fn listed_everywhere(what: &str, web: &Web, nodes: &[&Node], stream: &Stream, within: u64) {
    let begun = Instant::now();
    let link = format!("/streams/{}\"", stream.slug);
    until("the page", promised(within), async || {
        let page = web.text("/").await?;
        check(page.contains(&link) && page.contains(&stream.name), page)
    })
    .await;
    for node in nodes {
        let name = node.id();
        until("the list", promised(within), async || {
            let answer = node.api.try_get("/api/v1/streams").await?;
            let text = answer.to_string();
            check(
                text.contains(&stream.id.to_string()),
                format!("{name:?}: {text}"),
            )
        })
        .await;
    }
    println!("{what}: listed after {:?}", begun.elapsed());
}

/// Waits until more frames arrive at a node, and it is fed.
async fn receives(what: &str, node: &Node, stream: &Stream, within: u64) {
    let begun = Instant::now();
    let slug = stream.id.to_string();
    let mut first = None;
    until("frames", promised(within), async || {
        let local = node.api.try_stream(&slug).await?.local;
        let before = *first.get_or_insert(local.frames_received);
        let more = local.frames_received > before + 10;
        check(local.receiving && more, format!("{what}: {local:?}"))
    })
    .await;
    println!("{what}: frames after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_nodes_and_astral_web_is_killed_in_turn_and_all_is_as_before() {
    let _turn = turn::shared().await;
    let mut web = Web::start().await;
    let launch = |name| web.launch(name).limit("50mbit").fixed_ports();
    let mut publisher = launch("publisher").start().await;
    let mut first = launch("first").start().await;
    let mut second = launch("second").start().await;
    let (stream, ingest) = publisher.api.publish("Killed in turn").await;
    listed_everywhere("published", &web, &[&first, &second], &stream, 2).await;
    let mut encoder = Encoder::rtmp(Clip::small(120), &ingest);
    for node in [&first, &second] {
        join(node, &stream).await;
        flows(node, &stream).await;
    }

    web = web.restart().await;
    listed_everywhere("astral-web killed", &web, &[&first, &second], &stream, 5).await;
    receives("first", &first, &stream, 5).await;

    first = first.restart().await;
    listed_everywhere("first killed", &web, &[&first, &second], &stream, 5).await;
    receives("first", &first, &stream, 5).await;

    second = second.restart().await;
    listed_everywhere("second killed", &web, &[&first, &second], &stream, 5).await;
    receives("second", &second, &stream, 5).await;

    publisher = publisher.restart().await;
    drop(encoder);
    // As OBS does by itself: to where it sent before.
    encoder = Encoder::rtmp(Clip::small(120), &ingest);
    let all = [&publisher, &first, &second];
    listed_everywhere("publisher killed", &web, &all, &stream, 5).await;
    receives("first", &first, &stream, 5).await;
    receives("second", &second, &stream, 5).await;
    let again = publisher.api.stream(&stream.slug).await;
    assert_eq!(again.ingest, Some(ingest), "the encoder's URLs stay");
    drop(encoder);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_all_kinds_lead_to_their_stream_and_an_unlisted_one_shows_by_its_link_only() {
    let _turn = turn::shared().await;
    let mut web = Web::start().await;
    // Room for streams whose rate nobody knows yet.
    let one = web.launch("one").limit("100mbit").start().await;
    let two = web.launch("two").start().await;
    let viewer = web.launch("viewer").start().await;
    let (chinese, _) = one.api.publish("直播").await;
    let evil = "<script>alert(1)</script>";
    let (html, _) = one.api.publish(evil).await;
    let (mine, _) = one.api.publish("My show").await;
    web.lists(&mine).await;
    let (theirs, _) = two.api.publish("My show").await;
    let hidden = NewStream {
        name: "Among friends".into(),
        description: None,
        unlisted: true,
    };
    let hidden = one.api.call(Method::POST, "/streams", &hidden).await;
    let hidden: Stream = hidden.json();

    // Each is on the page under a name of its own, and that name leads to it anywhere.
    let mut slugs = Vec::new();
    for stream in [&chinese, &html, &mine, &theirs] {
        web.lists(stream).await;
        knows(&viewer, stream).await;
        let id = stream.id.to_string();
        let listed: Stream = viewer.api.stream(&id).await;
        assert_eq!(viewer.api.stream(&listed.slug).await.id, stream.id);
        let path = format!("/api/v1/streams/{}", listed.slug);
        let on_web = web.text(&path).await.unwrap();
        assert!(on_web.contains(&id), "{path}: {on_web}");
        slugs.push(listed.slug);
    }
    slugs.sort();
    slugs.dedup();
    assert_eq!(slugs.len(), 4, "{slugs:?}");
    let page = web.text("/").await.unwrap();
    assert!(page.contains("直播") && page.contains("alert(1)"), "{page}");
    assert!(!page.contains("<script>alert"), "{page}");

    // The unlisted one is nowhere: its publisher does not even tell astral-web of it.
    let id = hidden.id.to_string();
    let by_id = format!("/api/v1/streams/{id}");
    let lists = ["/", "/network", "/api/v1/streams", "/api/v1/bootstrap"];
    for path in lists.into_iter().chain([&*by_id]) {
        let text = web.text(path).await.unwrap();
        assert!(
            !text.contains(&id) && !text.contains("Among friends"),
            "{path}: {text}"
        );
    }
    let listed: List<Stream> = viewer.api.get("/streams").await;
    assert!(listed.items.iter().all(|stream| stream.id != hidden.id));
    // Its link leads to it, also with astral-web down, and also a node that knows nothing else.
    web.kill();
    let guest = Launch::new("guest").start().await;
    let link = until("a link with an address", s(20), async || {
        let share = one.api.stream(&id).await.share;
        check(share.contains('@'), &share).map(|()| share)
    })
    .await;
    for (node, share) in [(&viewer, &link), (&guest, &link), (&guest, &mine.share)] {
        let answer = node.api.watch(share).await;
        assert_eq!(answer.status, 201, "{share}: {answer}");
    }
    let listed: List<Stream> = viewer.api.get("/streams").await;
    let shown = listed.items.iter().any(|stream| stream.id == hidden.id);
    assert!(shown, "whoever watches it sees it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_over_https_if_they_trust_the_certificate() {
    let _turn = turn::shared().await;
    let web = Web::start_https().await;
    let ca = web.ca().expect("a certificate").display().to_string();
    let trusting = |name| web.launch(name).option("--web-ca", &ca);
    let publisher = trusting("publisher").start().await;
    let (stream, _) = publisher.api.publish("In confidence").await;
    let viewer = trusting("viewer").start().await;
    knows(&viewer, &stream).await;
    assert_eq!(viewer.api.watch(&stream.slug).await.status, 201);
    let stranger = web.launch("stranger").start().await;
    until("words about the certificate", s(20), async || {
        let log = stranger.log();
        check(log.contains("astral-web"), log)
    })
    .await;
    let listed = stranger.api.try_stream(&stream.slug).await;
    assert!(listed.is_err(), "who does not trust it is told nothing");
}
