//! Chaos with real processes: interior nodes of a tree of real nodes are killed, frozen,
//! told to leave or cut off, time after time, and every survivor's pictures are watched.
//!
//! `cargo run --release -p astral-tests --bin chaos -- [--nodes 20] [--rounds 20]
//! [--signal KILL|STOP|TERM|BOTH|CUT|MUTE|LOSS] [--namespaces]` prints a table: frames lost
//! or doubled, changes of parent, and the gap to the next picture at every survivor that was
//! below the node that was struck.
//!
//! With `BOTH`, the standby of one of its children is killed with it. `CUT`, `MUTE` (nothing
//! that the node sends arrives) and `LOSS` (5 %) spoil its link for some seconds; they want
//! every node in a network namespace of its own, which `--namespaces` does for the others.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use astral_tests::chaos::{Blow, CLIP, Gap, Outcome, Tree};
use astral_tests::netns::{Fault, possible};
use astral_tests::wait::s;
use rustix::process::Signal;
use tokio::time::sleep;

/// How long a tree is left alone before the next node is struck: standbys are found meanwhile.
const SETTLE: Duration = s(4);
/// And if what a leave costs is compared with the ten seconds before, which the round before
/// must not have disturbed.
const SETTLE_LONG: Duration = s(11);
/// How long pictures are watched after a blow, and after the end of one that ends.
const WATCH: Duration = s(4);
/// How long packets are lost.
const LOSSY: Duration = s(8);
/// Time for a tree's last round and for what the players still wait for.
const LAST_ROUND: Duration = s(45);

const USAGE: &str = "--nodes N --rounds N --signal KILL|STOP|TERM|BOTH|CUT|MUTE|LOSS --namespaces";

struct Options {
    nodes: usize,
    rounds: usize,
    signal: String,
    blow: Blow,
    namespaces: bool,
}

fn options() -> Options {
    let mut options = Options {
        nodes: 20,
        rounds: 20,
        signal: "KILL".into(),
        blow: Blow::Signal(Signal::KILL),
        namespaces: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse().ok());
        match name.as_str() {
            "--nodes" => options.nodes = number().expect(USAGE),
            "--rounds" => options.rounds = number().expect(USAGE),
            "--namespaces" => options.namespaces = true,
            "--signal" => {
                options.signal = args.next().expect(USAGE);
                options.blow = blow(&options.signal).expect(USAGE);
            }
            other => panic!("{other}? {USAGE}"),
        }
    }
    options.namespaces |= matches!(options.blow, Blow::Link(_));
    options
}

fn blow(name: &str) -> Option<Blow> {
    Some(match name {
        "KILL" => Blow::Signal(Signal::KILL),
        "STOP" => Blow::Signal(Signal::STOP),
        "TERM" => Blow::Signal(Signal::TERM),
        "BOTH" => Blow::Both,
        "CUT" => Blow::Link(Fault::Cut),
        "MUTE" => Blow::Link(Fault::Mute),
        "LOSS" => Blow::Link(Fault::Loss(50)),
        _ => return None,
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = options();
    if let (true, Err(reason)) = (options.namespaces, possible()) {
        eprintln!("chaos: no namespaces for the nodes: {reason}");
        return ExitCode::FAILURE;
    }
    // Namespaces do not end with a process: whoever stops it has them taken down, too.
    tokio::select! {
        () = run(&options) => ExitCode::SUCCESS,
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
    }
}

async fn run(options: &Options) {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut round = 0;
    let mut missing = (0, 0);
    // An encoder's clip lasts for some rounds; then everything starts anew.
    while round < options.rounds {
        let began = Instant::now();
        let mut tree = Tree::start(options.nodes - 1, options.namespaces).await;
        while round < options.rounds && began.elapsed() < CLIP - LAST_ROUND {
            let Some(seen) = one_round(options, &mut tree).await else {
                continue;
            };
            round += 1;
            let longest = |of: fn(&Gap) -> Duration| seen.gaps.iter().map(of).max();
            println!(
                "round {round}: {} below it, longest gap {:?}, then {:?}, {} frames lost, {} switches at most",
                seen.gaps.len(),
                longest(|gap| gap.after).unwrap_or_default(),
                longest(|gap| gap.healed).unwrap_or_default(),
                seen.lost,
                seen.switches
            );
            outcomes.push(seen);
        }
        let (whole, cut) = tree.check_order();
        missing = (missing.0 + whole, missing.1 + cut);
    }
    report(options, outcomes, missing);
}

async fn one_round(options: &Options, tree: &mut Tree) -> Option<Outcome> {
    let compared = options.blow == Blow::Signal(Signal::TERM);
    sleep(if compared { SETTLE_LONG } else { SETTLE }).await;
    let mut struck = tree.strike(options.blow).await?;
    match options.blow {
        Blow::Link(Fault::Loss(_)) => sleep(LOSSY).await,
        Blow::Link(_) | Blow::Signal(_) | Blow::Both => sleep(WATCH).await,
    }
    tree.end(&mut struck);
    if let Blow::Link(_) = options.blow {
        sleep(WATCH).await;
    }
    let seen = tree.outcome(&struck).await;
    tree.refill(struck).await;
    Some(seen)
}

fn report(options: &Options, outcomes: Vec<Outcome>, (missing, behind): (u64, u64)) {
    let lost: u64 = outcomes.iter().map(|seen| seen.lost).sum();
    let switches = outcomes.iter().map(|seen| seen.switches).max();
    let gaps: Vec<Gap> = outcomes.into_iter().flat_map(|seen| seen.gaps).collect();
    let place = if options.namespaces {
        "in namespaces"
    } else {
        "on loopback"
    };
    println!(
        "| {} nodes {place}, {} rounds of {} | |",
        options.nodes, options.rounds, options.signal
    );
    println!("|---|---|");
    println!(
        "| survivors below the node that was struck | {} |",
        gaps.len()
    );
    println!("| frames lost in the survivors' stores | {lost} |");
    println!("| pictures that a survivor's player missed, all run long | {missing} |");
    if let Blow::Link(_) = options.blow {
        println!("| and a player at the node that was cut off, while it caught up | {behind} |");
    }
    println!(
        "| most changes of parent of any survivor in a round | {} |",
        switches.unwrap_or(0)
    );
    if options.blow == Blow::Signal(Signal::TERM) {
        let over = |gap: &Gap| gap.after.saturating_sub(gap.calm).as_millis();
        let beyond = gaps.iter().map(over).max().unwrap_or(0);
        println!("| most that a gap is longer than in the 10 s before | {beyond} ms |");
    }
    println!(
        "| gap p50 / p99 / max | {} |",
        spread(&gaps, |gap| gap.after)
    );
    if let Blow::Link(_) = options.blow {
        let healed = spread(&gaps, |gap| gap.healed);
        println!("| gap after the link is whole again p50 / p99 / max | {healed} |");
    }
}

fn spread(gaps: &[Gap], of: fn(&Gap) -> Duration) -> String {
    let mut sorted: Vec<Duration> = gaps.iter().map(of).collect();
    sorted.sort();
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(place.max(1) - 1).map_or(0, Duration::as_millis)
    };
    format!("{} / {} / {} ms", at(0.5), at(0.99), at(1.0))
}
