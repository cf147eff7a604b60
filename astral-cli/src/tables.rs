//! Tables and the glance: the API's objects for people.

use std::time::{SystemTime, UNIX_EPOCH};

use astral_proto::api::settings::{SettingValue, Settings, Source};
use astral_proto::api::{Node, Role, Stream, StreamState, Ticket, TicketState};
use astral_proto::ids::NodeId;
use comfy_table::{CellAlignment, Table, presets};

use crate::failure::Failure;
use crate::format::{duration, rate, since, size};
use crate::term::{self, Style};

/// Stands where nothing is known.
pub(crate) const NONE: &str = "-";

/// Known nodes.
pub(crate) fn nodes(nodes: &[Node]) -> Rows {
    let mut table = table(&[
        "name", "uuid", "role", "rtt", "upload", "children", "seen", "address",
    ]);
    for node in nodes {
        let rtt = node.rtt_ms.map(|rtt| format!("{rtt:.1} ms"));
        row(
            &mut table,
            [
                name_of(node),
                node.uuid.to_string(),
                role(node.role).to_owned(),
                rtt.unwrap_or_else(|| NONE.to_owned()),
                upload(node),
                node.children.to_string(),
                seen(node),
                node.addresses.first().cloned().unwrap_or_default(),
            ],
        );
    }
    align_right(&mut table, &[3, 5]);
    Rows::of(&table, "no nodes are known")
}

/// Known streams.
pub(crate) fn streams(streams: &[Stream], own: NodeId) -> Rows {
    let mut table = table(&["slug", "name", "state", "rate", "viewers", "for", "here"]);
    for stream in streams {
        row(
            &mut table,
            [
                stream.slug.clone(),
                shortened(&stream.name),
                state(stream.state).to_owned(),
                rate(stream.bitrate_bps),
                stream.viewers.to_string(),
                since(&stream.started_at, now()).map_or_else(|| NONE.to_owned(), duration),
                here(stream, own),
            ],
        );
    }
    align_right(&mut table, &[3, 4, 5]);
    Rows::of(
        &table,
        "no streams are known; `astral publish NAME` makes one",
    )
}

/// Tickets.
pub(crate) fn tickets(tickets: &[Ticket]) -> Rows {
    let header = [
        "id", "stream", "state", "from", "to", "hops", "rate", "sent",
    ];
    let mut table = table(&header);
    for ticket in tickets {
        row(
            &mut table,
            [
                ticket.id.clone(),
                ticket.stream.slug.clone(),
                ticket_state(ticket),
                ticket.source.short(),
                ticket.destination.short(),
                ticket.hops.to_string(),
                rate(ticket.bitrate_bps),
                size(ticket.bytes),
            ],
        );
    }
    align_right(&mut table, &[5, 6, 7]);
    Rows::of(&table, "no tickets: nothing is received or forwarded")
}

/// Settings, with where each comes from.
pub(crate) fn settings(settings: &Settings) -> Rows {
    let mut table = table(&["setting", "value", "from", "while it runs"]);
    for (key, setting) in &settings.0 {
        let value = setting.value.as_ref().map(SettingValue::to_string);
        let value = value.filter(|value| !value.is_empty());
        let can = if setting.changeable {
            "can be changed"
        } else {
            ""
        };
        row(
            &mut table,
            [
                key.clone(),
                value.unwrap_or_else(|| NONE.to_owned()),
                source(setting.source).to_owned(),
                can.to_owned(),
            ],
        );
    }
    Rows::of(&table, "the node tells no settings")
}

/// Where a setting comes from, in words.
pub(crate) fn source(source: Source) -> &'static str {
    match source {
        Source::Default => "default",
        Source::File => "settings file",
        Source::Saved => "saved by a change",
        Source::Environment => "environment",
        Source::Flag => "flag",
    }
}

/// A state of a stream in a word.
pub(crate) fn state(state: StreamState) -> &'static str {
    match state {
        StreamState::Live => "live",
        StreamState::Waiting => "waiting",
        StreamState::Paused => "paused",
        StreamState::Ended => "ended",
    }
}

/// Where a ticket stands, and why.
pub(crate) fn ticket_state(ticket: &Ticket) -> String {
    let state = match ticket.state {
        TicketState::Offered => "offered",
        TicketState::Active => "active",
        TicketState::Standby => "standby",
        TicketState::Ended => "ended",
    };
    match &ticket.reason {
        Some(reason) => format!("{state}: {reason}"),
        None => state.to_owned(),
    }
}

/// A role in a word.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Supernode => "supernode",
    }
}

fn name_of(node: &Node) -> String {
    let name = shortened(&node.name);
    if node.is_self {
        format!("{name} (this node)")
    } else {
        name
    }
}

/// What a node spends of its upload.
pub(crate) fn upload(node: &Node) -> String {
    match (node.upload_used_bps, node.upload_limit_bps) {
        (Some(used), Some(limit)) => format!("{} of {}", rate(used), rate(limit)),
        (Some(used), None) => rate(used),
        (None, Some(limit)) => format!("at most {}", rate(limit)),
        (None, None) => NONE.to_owned(),
    }
}

fn seen(node: &Node) -> String {
    if node.is_self || node.connected {
        return "now".to_owned();
    }
    let ago = since(&node.last_seen, now());
    ago.map_or_else(|| NONE.to_owned(), |ago| format!("{} ago", duration(ago)))
}

/// How a stream is present at this node.
fn here(stream: &Stream, own: NodeId) -> String {
    let local = &stream.local;
    if stream.publisher == own {
        return "published here".to_owned();
    }
    match local.parent {
        Some(parent) => format!(
            "from {}, {} hops, {:.0} ms",
            parent.short(),
            local.hops,
            local.latency_ms
        ),
        None if local.receiving => "looking for a parent".to_owned(),
        None => NONE.to_owned(),
    }
}

/// A name that leaves room for the other columns.
fn shortened(name: &str) -> String {
    const CHARS_MAX: usize = 32;
    let mut chars = name.chars();
    let mut short: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// Adds a row without control characters: much of it was written by strangers.
fn row<const N: usize>(table: &mut Table, cells: [String; N]) {
    table.add_row(cells.map(|cell| printable(&cell)));
}

/// Text that does nothing to a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A table as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The line above the others.
    pub(crate) header: String,
    /// The others.
    pub(crate) lines: Vec<String>,
    /// What to say if there are none.
    pub(crate) empty: &'static str,
}

impl Rows {
    fn of(table: &Table, empty: &'static str) -> Self {
        // The table pads each column on both sides.
        let bare = |line: String| {
            let line = line.trim_end();
            line.strip_prefix(' ').unwrap_or(line).to_owned()
        };
        let mut lines = table.lines().map(bare);
        Self {
            header: lines.next().unwrap_or_default(),
            lines: match table.is_empty() {
                true => Vec::new(),
                false => lines.collect(),
            },
            empty,
        }
    }

    /// Prints them; on standard error that there are none.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        if self.lines.is_empty() {
            term::note(self.empty);
            return Ok(());
        }
        term::line(&term::styled(Style::Bold, &self.header))?;
        self.lines.iter().try_for_each(|line| term::line(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_hostile_names_do_not_break_the_table() {
        assert_eq!(shortened("My Show"), "My Show");
        assert_eq!(printable("a\x1b[31mb\nc"), "a[31mbc");
        assert_eq!(shortened(&"x".repeat(99)).chars().count(), 33);
    }
}
