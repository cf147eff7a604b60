//! What it costs a supernode to take a node in, beside bare quinn in the same run, and
//! whether its heartbeats come on time meanwhile.
//!
//! `cargo run --release -p astral-tests --bin bench-join -- [--joins 1000] [--repeats 3]
//! [--rate 500] [--seconds 10]`; `tests/benches/README.md` says how it measures.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use astral_proto::ids::SecretKey;
use astral_proto::wire::control::{Message, Register};
use astral_proto::wire::heartbeat::Heartbeat;
use astral_tests::bench::bare::{self, Sender};
use astral_tests::bench::meter::{cpu, median};
use astral_tests::hostile::identity::Identity;
use astral_tests::hostile::link::{Endpoint, Link};
use astral_tests::process::{Launch, Node};
use astral_tests::wait::s;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

const USAGE: &str = "bench-join [--joins N] [--repeats N] [--rate PER_SECOND] [--seconds N]";
/// The hidden mode in which this program is the bare server.
const MODE: &str = "--bare-server";
/// Joins under way at a time, when their cost is measured.
const AT_A_TIME: usize = 4;
/// Time for a process to be itself before anybody comes.
const SETTLE: Duration = s(2);
/// What two that are registered hear of each other (WIRE.md §3).
const BEAT_EVERY: Duration = Duration::from_millis(400);

struct Plan {
    joins: usize,
    repeats: usize,
    rate: u64,
    seconds: u64,
}

impl Plan {
    fn of(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut plan = Self {
            joins: 1_000,
            repeats: 3,
            rate: 500,
            seconds: 10,
        };
        while let Some(argument) = arguments.next() {
            let number: u64 = arguments.next()?.parse().ok()?;
            match argument.as_str() {
                "--joins" => plan.joins = number as usize,
                "--repeats" => plan.repeats = number as usize,
                "--rate" => plan.rate = number.max(1),
                "--seconds" => plan.seconds = number,
                _ => return None,
            }
        }
        Some(plan)
    }
}

/// A stranger; no two have the same key.
fn stranger(number: usize) -> Identity {
    let mut seed = [0x5a; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Identity::of(SecretKey::from_seed(seed))
}

async fn supernode() -> (Node, SocketAddr) {
    let launch = Launch::new("supernode").limit("unlimited");
    let node = launch.option("--supernode", "always").start().await;
    let address = node.ready.quic.parse().expect("an address");
    sleep(SETTLE).await;
    (node, address)
}

/// Connects, says `Hello`, registers, and waits for the answer.
async fn join(number: usize, to: SocketAddr) -> Option<Link> {
    let endpoint = Endpoint::bind(stranger(number));
    let mut link = endpoint.dial(to).await.ok()?;
    let register = Register {
        primary: true,
        over: None,
    };
    link.say(register).await.ok()?;
    let answer = |message: &Message| {
        matches!(message, Message::Registered(_) | Message::Refused(_)).then_some(())
    };
    link.expect(answer).await.ok()?;
    Some(link)
}

/// Connects; both sides show a certificate. That is all.
async fn handshake(number: usize, to: SocketAddr) -> Option<quinn::Connection> {
    let endpoint = Endpoint::bind(stranger(number));
    endpoint.connect(to).await.ok()
}

/// Takes in whoever comes, and does nothing more.
async fn serve_bare() {
    let endpoint = bare::listen();
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(conn) = incoming.await {
                conn.closed().await;
            }
        });
    }
}

/// Processor time per join at `pid`.
async fn cost<F: Future<Output = bool> + Send + 'static>(
    pid: u32,
    joins: usize,
    one: impl Fn(usize) -> F,
) -> Duration {
    let used = cpu(pid);
    let mut under_way: JoinSet<bool> = JoinSet::new();
    for number in 0..joins {
        if under_way.len() >= AT_A_TIME {
            assert!(under_way.join_next().await.expect("one").expect("no panic"));
        }
        under_way.spawn(one(number));
    }
    while let Some(joined) = under_way.join_next().await {
        assert!(joined.expect("no panic"), "a join failed");
    }
    (cpu(pid) - used) / joins as u32
}

async fn compare(plan: &Plan) -> (f64, f64, f64) {
    let (mut nodes, mut bares, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for repeat in 0..plan.repeats {
        let first = repeat * plan.joins;
        let (node, to) = supernode().await;
        let at_node = cost(node.pid(), plan.joins, |number| async move {
            let link = join(first + number, to).await;
            link.map(|link| link.conn.close(0u8.into(), b"")).is_some()
        });
        let at_node = at_node.await.as_secs_f64() * 1e6;
        drop(node);
        let bare = Sender::start_as(MODE);
        sleep(SETTLE).await;
        let to = bare.address;
        let at_bare = cost(bare.pid(), plan.joins, |number| async move {
            let conn = handshake(first + number, to).await;
            conn.map(|conn| conn.close(0u8.into(), b"")).is_some()
        });
        let at_bare = at_bare.await.as_secs_f64() * 1e6;
        eprintln!("{at_node:.0} us at the supernode, {at_bare:.0} us at bare quinn");
        nodes.push(at_node);
        bares.push(at_bare);
        ratios.push(at_node / at_bare);
    }
    (median(nodes), median(bares), median(ratios))
}

/// Times between two heartbeats at somebody who is registered, sorted.
async fn listen(link: &Link, lasts: Duration) -> Vec<Duration> {
    let (began, mut last, mut apart) = (Instant::now(), Instant::now(), Vec::new());
    while let Ok(Ok(datagram)) = timeout(
        lasts.saturating_sub(began.elapsed()),
        link.conn.read_datagram(),
    )
    .await
    {
        if Heartbeat::decode(&datagram).is_ok() {
            apart.push(last.elapsed());
            last = Instant::now();
        }
    }
    apart.push(last.elapsed());
    apart.sort();
    apart
}

/// Heartbeats while nobody comes, and while so many come.
async fn heartbeats(plan: &Plan) -> (Vec<Duration>, Vec<Duration>, usize) {
    let (_node, to) = supernode().await;
    let link = join(usize::MAX, to).await.expect("a place");
    let calm = listen(&link, s(5)).await;
    let crowd = tokio::spawn({
        let (rate, seconds) = (plan.rate, plan.seconds);
        async move {
            let mut ticks = interval(Duration::from_secs(1) / rate as u32);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut under_way = JoinSet::new();
            for number in 0..(rate * seconds) as usize {
                ticks.tick().await;
                under_way.spawn(async move { join(number, to).await.is_some() });
            }
            let all = under_way.join_all().await;
            all.into_iter().filter(|joined| *joined).count()
        }
    });
    let busy = listen(&link, s(plan.seconds)).await;
    (calm, busy, crowd.await.expect("no panic"))
}

async fn run(plan: Plan) {
    let (node, bare, ratio) = compare(&plan).await;
    println!("| a join: CPU at the supernode | a bare handshake: CPU at the server | ratio |");
    println!("|---|---|---|");
    println!("| {node:.0} us | {bare:.0} us | {ratio:.2} |");
    let (calm, busy, answered) = heartbeats(&plan).await;
    println!();
    println!(
        "| heartbeats of a supernode, every {} ms | p50 / p99 / max ms apart | joins answered |",
        BEAT_EVERY.as_millis()
    );
    println!("|---|---|---|");
    for (name, apart, joins) in [("calm", calm, 0), ("while nodes join", busy, answered)] {
        let at = |share: f64| {
            let place = (apart.len() as f64 * share).ceil() as usize;
            apart.get(place.max(1) - 1).map_or(0, Duration::as_millis)
        };
        println!(
            "| {name} | {} / {} / {} | {joins} |",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if arguments.peek().is_some_and(|mode| mode == MODE) {
        runtime.block_on(serve_bare());
        return ExitCode::SUCCESS;
    }
    match Plan::of(arguments) {
        Some(plan) => {
            runtime.block_on(run(plan));
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
