use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

/// 8 Mbit/s of turns: 1,000 bytes a millisecond.
fn megabyte_a_second() -> Arc<Uplink> {
    Arc::new(Uplink::new(Some(8_000_000 * 100 / TURNS_PERCENT + 1)))
}

/// Empties the bucket, so that what follows has to wait.
async fn drain(uplink: &Uplink) {
    uplink.acquire(Class::Control, 0, 0, 100_000).await;
}

struct Queue {
    uplink: Arc<Uplink>,
    served: mpsc::Sender<&'static str>,
    order: mpsc::Receiver<&'static str>,
    tasks: JoinSet<()>,
}

impl Queue {
    async fn new() -> Self {
        let uplink = megabyte_a_second();
        drain(&uplink).await;
        let (served, order) = mpsc::channel(100);
        Self {
            uplink,
            served,
            order,
            tasks: JoinSet::new(),
        }
    }

    /// Adds one who wants to write 1,000 bytes, behind those before.
    async fn wait(&mut self, name: &'static str, class: Class, child: u64, group: u64) {
        let (uplink, served) = (Arc::clone(&self.uplink), self.served.clone());
        self.tasks.spawn(async move {
            uplink.acquire(class, child, group, 1_000).await;
            served.try_send(name).unwrap();
        });
        tokio::task::yield_now().await;
    }

    async fn order(mut self) -> String {
        while self.tasks.join_next().await.is_some() {}
        drop(self.served);
        let mut names = Vec::new();
        while let Some(name) = self.order.recv().await {
            names.push(name);
        }
        names.join(" ")
    }
}

#[tokio::test(start_paused = true)]
async fn control_goes_before_audio_and_audio_before_video() {
    let mut queue = Queue::new().await;
    queue.wait("video", Class::Video, 1, 9).await;
    queue.wait("audio", Class::Audio, 2, 1).await;
    queue.wait("control", Class::Control, 3, 0).await;
    assert_eq!(queue.order().await, "control audio video");
}

#[tokio::test(start_paused = true)]
async fn newest_group_of_a_child_goes_first_and_equals_in_order_of_arrival() {
    let mut queue = Queue::new().await;
    queue.wait("old", Class::Video, 1, 1).await;
    queue.wait("new", Class::Video, 1, 3).await;
    queue.wait("mid", Class::Video, 1, 2).await;
    queue.wait("new2", Class::Video, 1, 3).await;
    assert_eq!(queue.order().await, "new new2 mid old");
}

#[tokio::test(start_paused = true)]
async fn children_take_turns_however_much_one_wants() {
    let mut queue = Queue::new().await;
    for name in ["a1", "a2", "a3", "a4"] {
        queue.wait(name, Class::Video, 1, 5).await;
    }
    queue.wait("b1", Class::Video, 2, 1).await;
    queue.wait("b2", Class::Video, 2, 1).await;
    queue.wait("c1", Class::Video, 3, 1).await;
    assert_eq!(queue.order().await, "a1 b1 c1 a2 b2 a3 a4");
}

#[tokio::test(start_paused = true)]
async fn children_that_always_want_more_get_equal_shares() {
    let uplink = megabyte_a_second();
    let mut children = JoinSet::new();
    for child in 0..5_u64 {
        let uplink = Arc::clone(&uplink);
        children.spawn(async move {
            let end = Instant::now() + Duration::from_secs(2);
            let mut chunks = 0_u64;
            while Instant::now() < end {
                uplink.acquire(Class::Video, child, chunks, 1_000).await;
                uplink.on_sent(1_000);
                chunks += 1;
            }
            chunks
        });
    }
    let shares = children.join_all().await;
    let total: u64 = shares.iter().sum();
    assert!((2_000..=2_060).contains(&total), "{total}");
    for share in &shares {
        assert!(share.abs_diff(total / 5) <= 11, "{shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_queue_and_costs_nothing() {
    let mut queue = Queue::new().await;
    let started = Instant::now();
    let uplink = Arc::clone(&queue.uplink);
    let gone = tokio::spawn(async move {
        uplink.acquire(Class::Control, 1, 0, 1_000_000).await;
    });
    tokio::task::yield_now().await;
    queue.wait("video", Class::Video, 1, 1).await;
    gone.abort();
    assert_eq!(queue.order().await, "video");
    // 100,000 bytes were taken from a bucket of 50,000, so 51 ms until 1,000 are there.
    assert_eq!(started.elapsed().as_millis() / 10, 5);
}

#[tokio::test(start_paused = true)]
async fn second_of_turns_stays_within_the_limit_and_an_instant_within_a_twentieth() {
    let uplink = Uplink::new(Some(8_000_000));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let start = Instant::now();
    let mut sent = 0;
    let mut at_once = 0;
    while start.elapsed() < Duration::from_secs(1) {
        sent += 500;
        uplink.acquire(Class::Video, 1, 1, 500).await;
        uplink.on_sent(500);
        if start.elapsed().is_zero() {
            at_once = sent;
        }
    }
    assert!((980_000..=1_000_500).contains(&sent), "{sent}");
    assert!(at_once <= 50_000, "{at_once}");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_had_no_turn_delay_the_next_one() {
    let uplink = megabyte_a_second();
    drain(&uplink).await;
    uplink.on_sent(100_000);
    let start = Instant::now();
    uplink.on_sent(20_000);
    uplink.acquire(Class::Video, 1, 1, 1_000).await;
    // 50 ms of debt from draining, 20 ms from what nobody prepaid, 1 ms of its own.
    assert_eq!(start.elapsed().as_millis(), 71);
}

#[tokio::test(start_paused = true)]
async fn without_limit_nobody_waits_and_bytes_are_counted() {
    let uplink = Uplink::new(None);
    let start = Instant::now();
    for _ in 0..1_000 {
        uplink.acquire(Class::Video, 1, 1, 1_000_000).await;
    }
    assert!(start.elapsed().is_zero());
    assert!(uplink.pass(1_000_000_000));
    uplink.on_sent(125_000);
    uplink.on_sent_elsewhere(125_000);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(uplink.used_bps(), 2_000_000);
    assert_eq!(uplink.limit(), None);
}

#[tokio::test(start_paused = true)]
async fn limit_of_zero_forwards_nothing_and_lets_control_pass() {
    let uplink = Uplink::new(Some(0));
    uplink.acquire(Class::Control, 1, 1, 1_000_000).await;
    assert!(uplink.pass(1_500));
    let media = uplink.acquire(Class::Audio, 1, 1, 1);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, media).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn changed_limit_counts_for_those_who_wait() {
    for raised in [None, Some(800_000_000)] {
        let uplink = Arc::new(Uplink::new(Some(0)));
        let mut waiting = JoinSet::new();
        for child in 0..3 {
            let uplink = Arc::clone(&uplink);
            waiting.spawn(async move { uplink.acquire(Class::Video, child, 1, 1_000).await });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        uplink.set_limit(raised);
        assert_eq!(waiting.join_all().await.len(), 3);
        assert!(start.elapsed() < Duration::from_millis(5));
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_sent_elsewhere_shut_the_gate() {
    let uplink = Uplink::new(Some(8_000_000));
    assert_eq!(uplink.shut_until(), None);
    uplink.on_sent_elsewhere(1_000_000);
    assert!(!uplink.pass(1_200));
    let shut = uplink.shut_until().unwrap() - Instant::now();
    assert_eq!(shut, GATE_RECHECK);
    tokio::time::sleep(Duration::from_millis(1_010)).await;
    assert!(uplink.pass(1_200));
}
