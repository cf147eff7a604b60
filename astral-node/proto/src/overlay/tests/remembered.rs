//! Who was connected in an earlier life, and what slugs meant then.

use std::time::Duration;

use super::*;

fn id(node: usize) -> NodeId {
    NodeId::of(&SecretKey::from_seed([node as u8 + 1; 32]).public())
}

/// A lone overlay and the moments at which it dialled whom.
struct Lone {
    overlay: Overlay,
    dials: Vec<(Time, DialId, Target)>,
}

impl Lone {
    fn new(remembered: usize) -> Self {
        let overlay = Net::new(&[1]).nodes.remove(0).overlay;
        let dials = Vec::new();
        let mut lone = Self { overlay, dials };
        let targets = (1..=remembered)
            .map(|node| Target {
                node: Some(id(node)),
                addresses: vec![address(node).0.to_string()],
            })
            .collect();
        lone.take(Time(0), Event::Remembered { targets });
        lone
    }

    fn take(&mut self, now: Time, event: Event) {
        let actions: Vec<Action> = self.overlay.handle(now, event).collect();
        self.note(now, actions);
    }

    fn note(&mut self, now: Time, actions: Vec<Action>) {
        for action in actions {
            if let Action::Dial { dial, target } = action {
                self.dials.push((now, dial, target));
            }
        }
    }

    /// Lets time pass; whoever is dialled does not answer.
    fn alone_for(&mut self, span: Duration) {
        while let Some((at, _)) = self.overlay.poll_timeout() {
            if at > Time(0).after(span) {
                return;
            }
            let before = self.dials.len();
            let actions: Vec<Action> = self.overlay.handle_timeout(at).collect();
            self.note(at, actions);
            let dials: Vec<DialId> = self.dials[before..]
                .iter()
                .map(|(_, dial, _)| *dial)
                .collect();
            for dial in dials {
                self.take(at, Event::DialFailed { dial });
            }
        }
    }
}

#[test]
fn remembered_nodes_are_tried_in_turn_for_ever_and_ever_less_often() {
    let mut lone = Lone::new(3);
    lone.alone_for(Duration::from_secs(600));
    let tried: Vec<_> = lone.dials.iter().take(6).map(|(_, _, t)| t.node).collect();
    let turns = [1, 2, 3, 1, 2, 3].map(|node| Some(id(node)));
    assert_eq!(tried, turns);
    let (last, _, _) = lone.dials.last().unwrap();
    assert!(Time(600_000_000).since(*last) <= Duration::from_secs(30));
    assert!(lone.dials.len() < 60, "{} dials", lone.dials.len());
}

#[test]
fn only_a_handful_is_dialled_at_once() {
    let mut lone = Lone::new(100);
    // Nobody answers and nobody refuses.
    for _ in 0..100 {
        let (at, _) = lone.overlay.poll_timeout().unwrap();
        let actions: Vec<Action> = lone.overlay.handle_timeout(at).collect();
        lone.note(at, actions);
    }
    assert_eq!(lone.dials.len(), 4);
}
