//! Interior nodes that die or are cut off, each on a computer of its own: what the command
//! `chaos` does with twenty of them, once and small.

use std::time::Duration;

use astral_tests::chaos::{Blow, Tree};
use astral_tests::netns::{Fault, allowed};
use astral_tests::turn;
use astral_tests::wait::s;
use rustix::process::Signal;

/// Longest time without a picture that a second of buffer bridges; the figures proper
/// are printed, since machines are noisy.
const GAP_MAX: Duration = s(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_dies_or_is_cut_off_is_left_without_a_frame_lost() {
    if !allowed() {
        return;
    }
    let _turn = turn::alone().await;
    let mut tree = Tree::start(5, true).await;
    for blow in [Blow::Link(Fault::Cut), Blow::Signal(Signal::KILL)] {
        tree.settled().await;
        let mut struck = tree.strike(blow).await.expect("somebody feeds others");
        tree.left(&struck).await;
        tree.more_pictures(&struck, 60).await;
        tree.end(&mut struck);
        tree.more_pictures(&struck, 60).await;
        let seen = tree.outcome(&struck).await;
        let longest = seen.gaps.iter().map(|gap| gap.after).max();
        let longest = longest.expect("somebody was below it");
        let healed = seen.gaps.iter().map(|gap| gap.healed).max();
        println!(
            "{blow:?}: longest gap {longest:?}, {healed:?} when all is whole again, {} switches",
            seen.switches
        );
        assert!(longest <= GAP_MAX, "{blow:?}: {longest:?}");
        assert_eq!(seen.lost, 0, "{blow:?}");
        assert!(seen.switches <= 2, "{blow:?}: {} switches", seen.switches);
        tree.refill(struck).await;
    }
    // Players that hold nothing back leave out what comes late; stores lack nothing, as above.
    println!("pictures left out by players: {:?}", tree.check_order());
}
