//! What goes into the overlay and what comes out: its whole contract with a shell.
//!
//! The shell calls [`super::Overlay::handle`] with each [`Event`] and the time,
//! carries out every [`Action`] in order, and calls
//! [`super::Overlay::handle_timeout`] when [`super::Overlay::poll_timeout`] says.

use std::fmt;
use std::time::Duration;

use super::seeding::Consent;
use super::supernodes::Mode;
use crate::ids::{NodeId, PublicKey, StreamId, TicketId};
use crate::record::{Address, NodeLoad, Role, SignedNode, SignedStream};
use crate::wire::CloseCode;
use crate::wire::control::{Confirm, Fetch, Have, Message, Reason};
use crate::wire::heartbeat::{Heartbeat, Supply};

/// A moment, in microseconds since any fixed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment `later` after this one, rounded up to a microsecond: a timer that is set
    /// so never runs out too early, only to be set to the same moment again.
    pub fn after(self, later: Duration) -> Self {
        let us = later.as_nanos().div_ceil(1_000);
        Self(self.0.saturating_add(u64::try_from(us).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this moment; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A connection, numbered by the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}", self.0)
    }
}

/// An attempt to connect, numbered by the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The id that it must prove, if only that one will do.
    pub node: Option<NodeId>,
    /// `host:port`, tried in order, names resolved by the shell.
    pub addresses: Vec<String>,
}

/// Why this node takes a stream in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its owner asked for it.
    Watch,
    /// A local player reads it; the shell lets it go some time after the last.
    Readers,
    /// It is carried for whoever offered it.
    Seed,
    /// Nodes that are registered here asked for it; said by the overlay itself.
    Serve,
}

/// How far the store of a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Epoch of the newest frame.
    pub epoch: u32,
    /// Newest group and the frames of it that are there.
    pub newest: (u64, u32),
    /// Highest 1 s average of the last 5 s, in bit/s; 0 while unknown.
    pub peak_bps: u64,
    /// When the last verified chunk came; zero if that is not known.
    pub last: Time,
    /// The longest pause between chunks that is usual; zero while unknown.
    pub gap: Duration,
    /// Frames that never came.
    pub lost: u64,
}

/// Frames that the store lacks though it could have them: later ones are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hole {
    /// Group number.
    pub group: u64,
    /// Track number.
    pub track: u8,
    /// First frame.
    pub first: u32,
    /// How many; more than there are if the group's end is not known.
    pub count: u32,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A handshake succeeded.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Key of the peer's certificate.
        key: PublicKey,
        /// Where it is.
        remote: Address,
        /// The attempt of ours that led to it; `None` if the peer dialled.
        dial: Option<DialId>,
        /// Round-trip time of the handshake.
        rtt: Duration,
    },
    /// An attempt to connect failed.
    DialFailed {
        /// The attempt.
        dial: DialId,
    },
    /// A connection is gone.
    Closed {
        /// The connection.
        conn: ConnId,
        /// The code that the peer gave, if it did.
        code: Option<CloseCode>,
    },
    /// A control message arrived.
    Received {
        /// On this connection.
        conn: ConnId,
        /// The message.
        message: Message,
    },
    /// A heartbeat arrived.
    Beat {
        /// On this connection.
        conn: ConnId,
        /// The heartbeat.
        beat: Heartbeat,
    },
    /// The store of a stream has moved on.
    Progress {
        /// The stream.
        stream: StreamId,
        /// How far.
        progress: Progress,
    },
    /// Frames come under this ticket: said at its first one, and once more when whoever
    /// sends has kept up with what this node holds for a moment.
    Came {
        /// On this connection.
        conn: ConnId,
        /// The ticket.
        ticket: TicketId,
        /// Whether it is among the newest.
        level: bool,
    },
    /// The store of a stream lacks frames: all that it lacks by now, the oldest first.
    /// Said again for as long as it does.
    Missing {
        /// The stream.
        stream: StreamId,
        /// What it lacks.
        holes: Vec<Hole>,
    },
    /// Bytes under a ticket did not verify.
    BadMedia {
        /// On this connection.
        conn: ConnId,
        /// The stream.
        stream: StreamId,
    },
    /// A stream of this node, new or signed anew.
    Publish {
        /// Its record.
        record: SignedStream,
        /// Whether frames come in from the encoder, for a stream that is new;
        /// later on `Supply` says so.
        supply: Supply,
    },
    /// A stream of this node is over.
    Unpublish {
        /// Its last record, with the state `ended`.
        record: SignedStream,
    },
    /// Frames of a stream of this node come in, or do not.
    Supply {
        /// The stream.
        stream: StreamId,
        /// How it stands.
        supply: Supply,
    },
    /// The stream is wanted here.
    Want {
        /// The stream.
        stream: StreamId,
        /// By whom.
        why: Why,
    },
    /// The stream is no longer wanted here; the last reason gone ends its ticket.
    Unwant {
        /// The stream.
        stream: StreamId,
        /// By whom; `None`: by nobody, and nothing is to be forwarded either.
        why: Option<Why>,
    },
    /// A stream is to be offered to another node; `Overlay::seed_answer` says what it says.
    Seed {
        /// The node.
        node: NodeId,
        /// The stream.
        stream: StreamId,
    },
    /// Which streams this node carries that it did not ask for.
    Consent {
        /// Whose.
        consent: Consent,
    },
    /// The peers are to be asked for a stream.
    Find {
        /// Its id, if that is known.
        id: Option<StreamId>,
        /// Else its slug.
        slug: Option<String>,
    },
    /// Nodes to keep a connection to: from the settings, or a share link.
    Bootstrap {
        /// Whom to dial.
        target: Target,
    },
    /// Nodes that were connected in an earlier life, the best first: a few of them are
    /// dialled while hardly anybody else is connected.
    Remembered {
        /// Whom.
        targets: Vec<Target>,
    },
    /// What bare slugs meant first in an earlier life.
    Named {
        /// Slug and stream.
        slugs: Vec<(String, StreamId)>,
    },
    /// A ticket is to end.
    Revoke {
        /// The ticket.
        ticket: TicketId,
    },
    /// A node is to be forgotten.
    Forget {
        /// The node.
        node: NodeId,
    },
    /// The upload limit has changed.
    Limit {
        /// bit/s; `None`: unlimited.
        bps: Option<u64>,
    },
    /// This node's own record has changed.
    Identity {
        /// The signed record.
        record: SignedNode,
    },
    /// What astral-web lists, verified.
    Heard {
        /// Nodes, and where they are.
        nodes: Vec<(SignedNode, Vec<Address>)>,
        /// Streams.
        streams: Vec<SignedStream>,
    },
    /// The first bootstrap round is over: from now on the node sees to supernodes.
    Supernodes {
        /// Whether it becomes one.
        mode: Mode,
    },
    /// Where this node listens or a router forwards to it, as far as it can tell itself:
    /// at start, and whenever that changes.
    Whereabouts {
        /// Addresses of its interfaces, those it was told to advertise, and the mapped one.
        addresses: Vec<Address>,
    },
    /// What came of `Action::Probe`.
    Probed {
        /// The connection that asked.
        conn: ConnId,
        /// Number of its question.
        query: u64,
        /// Whether the address answered with the right key.
        reachable: bool,
    },
    /// The node is to go, in good order.
    Leave,
}

/// What this node's record is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it does for others.
    pub role: Role,
    /// Where others have reached it, best first: goes before what it says itself.
    pub reached: Vec<Address>,
    /// How busy it is, if it is a supernode.
    pub load: Option<NodeLoad>,
}

/// Something for the shell to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Connect; answer with `Connected` or `DialFailed`.
    Dial {
        /// Number of the attempt.
        dial: DialId,
        /// Whom.
        target: Target,
    },
    /// Send a control message.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The message.
        message: Message,
    },
    /// Send `TicketConfirm`, with what the store holds by now.
    Confirm {
        /// On this connection.
        conn: ConnId,
        /// The stream.
        stream: StreamId,
        /// Active or standby.
        confirm: Confirm,
    },
    /// Send `TicketActivate`, with what the store holds by now.
    Activate {
        /// On this connection.
        conn: ConnId,
        /// The standby's ticket.
        ticket: TicketId,
        /// The stream.
        stream: StreamId,
    },
    /// Send a heartbeat.
    Beat {
        /// On this connection.
        conn: ConnId,
        /// The heartbeat.
        beat: Heartbeat,
    },
    /// Close a connection; `Closed` follows.
    Close {
        /// The connection.
        conn: ConnId,
        /// The code for the peer.
        code: CloseCode,
        /// Why, in words.
        reason: String,
    },
    /// Keep a store for this stream, and let it know the current record.
    Open {
        /// The record.
        record: SignedStream,
    },
    /// The stream is no longer taken in.
    Drop {
        /// The stream.
        stream: StreamId,
    },
    /// Forward a stream from the store.
    SetRoute {
        /// To this connection.
        conn: ConnId,
        /// Under this ticket.
        ticket: TicketId,
        /// The stream.
        stream: StreamId,
        /// What the child holds already.
        have: Have,
    },
    /// Stop forwarding.
    ClearRoute {
        /// The connection.
        conn: ConnId,
        /// The ticket.
        ticket: TicketId,
    },
    /// Send frames from the store once, as far as they are there and not on their way.
    Serve {
        /// To this connection.
        conn: ConnId,
        /// The stream.
        stream: StreamId,
        /// Which, and under which ticket.
        fetch: Fetch,
    },
    /// Take in what comes under this ticket.
    Expect {
        /// On this connection.
        conn: ConnId,
        /// The ticket.
        ticket: TicketId,
        /// The stream.
        stream: StreamId,
    },
    /// Refuse what comes under this ticket.
    Unexpect {
        /// On this connection.
        conn: ConnId,
        /// The ticket.
        ticket: TicketId,
    },
    /// For people and their programs: something that the API shows has changed.
    Changed(Change),
    /// Sign this node's record anew, saying this, and answer with `Identity`.
    Sign(Description),
    /// Dial this address from a socket that nothing was sent from before, see whether it
    /// answers with this key, hang up, and answer with `Probed`.
    Probe {
        /// The connection that asked.
        conn: ConnId,
        /// Number of its question.
        query: u64,
        /// Whom to find there.
        key: PublicKey,
        /// Where.
        address: Address,
    },
    /// Everybody has been told and has moved, or time is up: the node may go.
    Left,
}

/// What changed, for logs and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A peer is connected.
    PeerJoined(NodeId),
    /// A peer is gone, with the reason.
    PeerLeft(NodeId),
    /// A stream's record is new.
    Stream(StreamId),
    /// A stream arrives from this node now.
    Parent(StreamId, NodeId),
    /// A stream's parent is lost.
    ParentLost(StreamId, NodeId, Reason),
    /// Nobody has room for the stream here: the reason of the last refusal.
    NoRoom(StreamId, Reason),
    /// A ticket was promised to this node.
    Promised(TicketId, NodeId),
    /// This node is ready to feed that one, should its parent fail.
    Ready(TicketId, NodeId),
    /// A ticket of ours ended.
    Ended(TicketId, NodeId, Reason),
    /// This node is registered with another supernode, or with none.
    Registered(Option<NodeId>),
    /// A peer is not served for a time, with the reason.
    Banned(NodeId, String),
}
