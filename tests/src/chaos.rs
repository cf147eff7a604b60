//! A tree of real nodes of which interior ones are struck: killed, frozen, told to leave,
//! or cut off. What that did to the others is counted at their players and by their APIs.
//!
//! All on loopback, or each on a computer of its own ([`crate::netns`]): links can only be
//! spoilt there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use astral_proto::api::{Local, Stream, TicketState};
use astral_proto::ids::NodeId;
use rustix::process::Signal;

use crate::chain::{flows, join};
use crate::ffmpeg::{Clip, Encoder};
use crate::netns::{Fault, Net, PORT};
use crate::process::{Launch, Node};
use crate::recording::Recording;
use crate::wait::{check, s, until};

/// How long the clip lasts that is sent; a tree lives no longer.
pub const CLIP: Duration = s(CLIP_S as u64);
const CLIP_S: u32 = 240;

/// What an interior node suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It gets a signal.
    Signal(Signal),
    /// It is killed, and in the same moment the standby of one of its children.
    Both,
    /// Its link is spoilt.
    Link(Fault),
}

/// A node that watches, and what its player gets.
struct Watcher {
    node: Node,
    recording: Recording,
    /// Its computer's number.
    number: u8,
    /// Whether its link was cut, and its player came after that.
    was_cut: bool,
}

/// A publisher and those who watch.
pub struct Tree {
    watchers: Vec<Watcher>,
    _encoder: Encoder,
    publisher: Node,
    slug: String,
    stream: Stream,
    /// Room for three copies at every place: a tree several levels deep.
    limit: u64,
    /// Of the last computer.
    number: u8,
    net: Option<Net>,
}

/// A blow that was struck.
pub struct Struck {
    blow: Blow,
    at: Instant,
    ended: Option<Instant>,
    victims: Vec<Watcher>,
    /// The victim's children, if both were struck only those whose parent and standby they are.
    below: BTreeSet<NodeId>,
    before: BTreeMap<NodeId, Local>,
}

/// What a blow did to the others.
pub struct Outcome {
    /// Of each child of the victim.
    pub gaps: Vec<Gap>,
    /// Frames that any survivor's store lacks since.
    pub lost: u64,
    /// Most changes of parent of any survivor.
    pub switches: u64,
}

/// Longest times without a picture at a survivor's player.
pub struct Gap {
    /// Until the end of the blow.
    pub after: Duration,
    /// From then on.
    pub healed: Duration,
    /// In the ten seconds before.
    pub calm: Duration,
}

impl Tree {
    /// A publisher with so many watchers, all with pictures.
    pub async fn start(watchers: usize, in_namespaces: bool) -> Self {
        let clip = Clip::small(CLIP_S);
        let limit = clip.bps() * 115 / 100 * 4;
        let mut net = in_namespaces.then(Net::new);
        let publisher = launch("publisher", net.as_mut(), 1).limit(limit);
        let publisher = publisher.start().await;
        let (stream, ingest) = publisher.api.publish("Chaos").await;
        let encoder = Encoder::rtmp_on(publisher.api.host.as_deref(), clip, &ingest);
        flows(&publisher, &stream).await;
        let mut tree = Self {
            watchers: Vec::new(),
            _encoder: encoder,
            publisher,
            slug: stream.id.to_string(),
            stream,
            limit,
            number: 1,
            net,
        };
        while tree.watchers.len() < watchers {
            tree.add().await;
        }
        tree
    }

    /// One more watcher.
    async fn add(&mut self) {
        self.number += 1;
        let node = launch("watcher", self.net.as_mut(), self.number).limit(self.limit);
        let node = node.peer(&self.publisher).start().await;
        join(&node, &self.stream).await;
        let recording = self.record(&node).await;
        self.watchers.push(Watcher {
            node,
            recording,
            number: self.number,
            was_cut: false,
        });
    }

    async fn record(&self, node: &Node) -> Recording {
        let recording = Recording::start(&node.api, &self.slug, "target_ms=0");
        recording
            .wait("pictures", s(30), |came| came.samples(1) > 5)
            .await;
        recording
    }

    /// Strikes the busiest interior node. `None` if nobody feeds another one.
    pub async fn strike(&mut self, blow: Blow) -> Option<Struck> {
        let (place, mut below) = self.interior().await.into_iter().next()?;
        let mut victims = vec![self.watchers.remove(place)];
        if blow == Blow::Both {
            victims.extend(self.take_standby(&mut below).await);
        }
        let before = self.locals().await;
        let at = Instant::now();
        for victim in &victims {
            match blow {
                Blow::Signal(signal) => victim.node.signal(signal),
                Blow::Both => victim.node.signal(Signal::KILL),
                Blow::Link(fault) => self.net().spoil(victim.number, fault),
            }
        }
        Some(Struck {
            blow,
            at,
            ended: None,
            victims,
            below,
            before,
        })
    }

    /// The end of a blow: a spoilt link is healed, other victims are dead.
    pub fn end(&self, struck: &mut Struck) {
        struck.ended = Some(Instant::now());
        for victim in &mut struck.victims {
            match struck.blow {
                Blow::Link(_) => self.net().heal(victim.number),
                Blow::Signal(_) | Blow::Both => victim.node.kill(),
            }
        }
    }

    /// What the others saw of it until now.
    pub async fn outcome(&self, struck: &Struck) -> Outcome {
        let (now, after) = (Instant::now(), self.locals().await);
        let ended = struck.ended.unwrap_or(now);
        let gap = |recording: &Recording| Gap {
            after: recording.longest_gap(struck.at, ended),
            healed: recording.longest_gap(ended, now),
            calm: recording.longest_gap(struck.at - s(10), struck.at),
        };
        let pairs = struck.before.iter();
        let pairs: Vec<(&Local, &Local)> = pairs
            .filter_map(|(id, before)| Some((before, after.get(id)?)))
            .collect();
        let lost = pairs
            .iter()
            .map(|(b, a)| a.frames_lost.saturating_sub(b.frames_lost));
        let switches = pairs
            .iter()
            .map(|(b, a)| a.switches.saturating_sub(b.switches));
        Outcome {
            gaps: self.below(struck).map(|w| gap(&w.recording)).collect(),
            lost: lost.sum(),
            switches: switches.max().unwrap_or(0),
        }
    }

    /// As many watch again as before: the victim with a new player, or a new node in its place.
    pub async fn refill(&mut self, struck: Struck) {
        for victim in struck.victims {
            match struck.blow {
                Blow::Signal(_) | Blow::Both => self.add().await,
                Blow::Link(_) => {
                    let recording = self.record(&victim.node).await;
                    self.watchers.push(Watcher {
                        recording,
                        was_cut: true,
                        ..victim
                    });
                }
            }
        }
    }

    /// Waits until somebody feeds others, all of whom have a standby.
    pub async fn settled(&self) {
        until(
            "an interior node whose children have standbys",
            s(30),
            async || {
                let interior = self.interior().await.into_iter().next();
                let (_, below) = interior.ok_or_else(|| "nobody feeds others".to_owned())?;
                let locals = self.locals().await;
                let mut ready = locals.iter().filter(|(id, _)| below.contains(id));
                let ready = ready.all(|(_, local)| local.standby.is_some());
                check(ready, format!("{locals:?}"))
            },
        )
        .await;
    }

    /// Waits until so many more pictures have come to each of the victim's children.
    pub async fn more_pictures(&self, struck: &Struck, more: u32) {
        for watcher in self.below(struck) {
            let before = watcher.recording.received().samples(1);
            let enough = |came: &crate::recording::Received| came.samples(1) >= before + more;
            watcher.recording.wait("more pictures", s(20), enough).await;
        }
    }

    /// Waits until no child of the victim is fed by it.
    pub async fn left(&self, struck: &Struck) {
        let victims: Vec<NodeId> = struck.victims.iter().map(|v| v.node.id()).collect();
        until("other parents", s(15), async || {
            let locals = self.locals().await;
            let mut parents = locals
                .iter()
                .filter(|(id, _)| struck.below.contains(id))
                .map(|(_, local)| local.parent);
            let left = parents.all(|parent| parent.is_some_and(|p| !victims.contains(&p)));
            check(left, format!("{locals:?}"))
        })
        .await;
    }

    /// No picture came twice or out of order anywhere; answers how many are missing
    /// between others, at nodes that nothing happened to, and at those that had been cut off
    /// and were catching up.
    pub fn check_order(&self) -> (u64, u64) {
        let (cut, whole): (Vec<_>, Vec<_>) = self.watchers.iter().partition(|w| w.was_cut);
        let missing = |of: Vec<&Watcher>| of.into_iter().map(Watcher::missing).sum();
        (missing(whole), missing(cut))
    }

    fn net(&self) -> &Net {
        let net = self.net.as_ref();
        net.expect("links are spoilt in namespaces only")
    }

    fn below<'a>(&'a self, struck: &'a Struck) -> impl Iterator<Item = &'a Watcher> {
        let all = self.watchers.iter();
        all.filter(|watcher| struck.below.contains(&watcher.node.id()))
    }

    /// Nodes that feed others, with those below them, the busiest first.
    async fn interior(&self) -> Vec<(usize, BTreeSet<NodeId>)> {
        let mut found = Vec::new();
        for (place, watcher) in self.watchers.iter().enumerate() {
            let tickets = watcher.node.api.tickets(&self.slug).await;
            let active = tickets.iter().filter(|ticket| {
                ticket.source == watcher.node.id() && ticket.state == TicketState::Active
            });
            let below: BTreeSet<NodeId> = active.map(|ticket| ticket.destination).collect();
            if !below.is_empty() {
                found.push((place, below));
            }
        }
        found.sort_by_key(|(_, below)| std::cmp::Reverse(below.len()));
        found
    }

    /// Takes out the standby of one of these, and narrows them to those that had it.
    async fn take_standby(&mut self, below: &mut BTreeSet<NodeId>) -> Option<Watcher> {
        let mut standbys: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        let locals = self.locals().await;
        for (id, local) in locals.iter().filter(|(id, _)| below.contains(id)) {
            if let Some(standby) = local.standby {
                standbys.entry(standby).or_default().insert(*id);
            }
        }
        let (place, of) = standbys.into_iter().find_map(|(standby, of)| {
            let is_it = |watcher: &Watcher| watcher.node.id() == standby;
            Some((self.watchers.iter().position(is_it)?, of))
        })?;
        *below = of;
        Some(self.watchers.remove(place))
    }

    /// The stream as each watcher has it.
    async fn locals(&self) -> BTreeMap<NodeId, Local> {
        let mut locals = BTreeMap::new();
        for watcher in &self.watchers {
            let stream = until("an answer", s(5), async || {
                watcher.node.api.try_stream(&self.slug).await
            });
            locals.insert(watcher.node.id(), stream.await.local);
        }
        locals
    }
}

impl Watcher {
    fn missing(&self) -> u64 {
        let received = self.recording.received();
        let pieces = received.by_time();
        let video = pieces.iter().filter(|((track, _), _)| *track == 1);
        let video: Vec<(u64, Instant)> = video.map(|((_, at), (_, came))| (*at, *came)).collect();
        let mut sum = 0;
        for (place, pair) in video.windows(2).enumerate() {
            // Stamps are whole milliseconds; a step is a picture's time, more or less.
            let missing = ((pair[1].0 - pair[0].0 + 1_500) / 3_000).saturating_sub(1);
            sum += missing;
            if missing > 0 {
                let after = pair[0].1 - video[0].1;
                let waited = pair[1].1 - pair[0].1;
                println!(
                    "HOLE at {}: {missing} pictures after {place}, {after:.1?} from its start; waited {waited:?}",
                    self.node.id().short()
                );
            }
        }
        sum
    }
}

/// A node here, or on a new computer.
fn launch(name: &'static str, net: Option<&mut Net>, number: u8) -> Launch {
    let launch = Launch::new(name);
    match net {
        None => launch,
        Some(net) => {
            let host = net.host(number, false);
            launch.on(&host, &format!("203.0.113.{number}:{PORT}"))
        }
    }
}
