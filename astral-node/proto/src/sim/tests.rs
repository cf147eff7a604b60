//! Each rule is seen to be noticed when it is not kept, and kept when nothing is broken.

use super::scenario::{Joins, Network, Stream, Upload};
use super::*;

/// A hundred nodes, of which a third leaves.
fn scenario(media: Media) -> Scenario {
    Scenario {
        name: "test".into(),
        about: String::new(),
        nodes: 100,
        seed: 1,
        duration_s: 24.0,
        media,
        stream: Stream::default(),
        network: Network::default(),
        upload: Upload::default(),
        joins: Joins {
            over_s: 4.0,
            contacts: Contacts::Receivers,
        },
        sessions: None,
        hostile: None,
        contributors_first: true,
        faults: vec![Fault {
            at_s: 12.0,
            what: Trouble::Leave {
                share: 0.3,
                over_s: 3.0,
                abrupt: 0.5,
            },
        }],
        expect: Expect::default(),
    }
}

fn breaches(report: &Report, check: &str) -> u64 {
    report.broken.get(check).copied().unwrap_or(0)
}

#[test]
fn rules_are_kept_by_the_system_as_it_is() {
    for media in [Media::Flow, Media::Exact] {
        let mut scenario = scenario(media);
        if media == Media::Exact {
            // Nobody pulls here what is missing.
            scenario.expect.on_time = 0.99;
        }
        let report = run(&scenario);
        assert!(
            report.holds(),
            "{media:?}: {:?} {:?}",
            report.judged,
            report.violations
        );
        assert_eq!(report.joined, 100);
        assert!(
            report.gap.count > 0 && report.join.count == 100,
            "{report:?}"
        );
    }
}

#[test]
fn same_seed_gives_the_same_run_and_another_seed_another() {
    let of = |seed: u64| {
        let mut scenario = scenario(Media::Flow);
        (scenario.seed, scenario.duration_s) = (seed, 6.0);
        run(&scenario).digest
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn promise_beyond_the_upload_is_noticed() {
    let report = run_broken(&scenario(Media::Flow), Broken::Limitless);
    assert!(breaches(&report, "budget") > 0, "{:?}", report.broken);
}

#[test]
fn route_that_outlives_its_expiry_is_noticed() {
    let report = run_broken(&scenario(Media::Flow), Broken::Immortal);
    assert!(breaches(&report, "expiry") > 0, "{:?}", report.broken);
}

#[test]
fn nodes_that_do_not_look_for_another_parent_are_noticed() {
    let report = run_broken(&scenario(Media::Flow), Broken::Idle);
    assert!(breaches(&report, "served") > 0, "{:?}", report.broken);
}

#[test]
fn loops_are_noticed_if_nodes_do_not_see_themselves_in_a_path() {
    let found = (1..20).any(|seed| {
        let mut scenario = scenario(Media::Flow);
        scenario.seed = seed;
        breaches(&run_broken(&scenario, Broken::Blind), "loop") > 0
    });
    assert!(found);
}

#[test]
fn frames_that_are_lost_or_doubled_are_noticed() {
    let report = run_broken(&scenario(Media::Exact), Broken::Forgetful);
    assert!(
        report.frames_lost > 0 && !report.holds(),
        "{:?}",
        report.judged
    );
    let report = run_broken(&scenario(Media::Exact), Broken::Careless);
    assert!(breaches(&report, "doubled") > 0, "{:?}", report.broken);
}
