//! `status`: this node at a glance, and what is wrong with it.

use astral_proto::api::{Node, Reach, Role, Stream, Ticket, TicketState};
use astral_proto::ids::NodeId;

use crate::failure::Failure;
use crate::health;
use crate::tables::{NONE, printable, role, upload};
use crate::term::{self, Style};

/// What the node says of itself and of what it knows.
pub(crate) struct Glance<'a> {
    /// `http://host:port`.
    pub(crate) base: &'a str,
    /// Itself.
    pub(crate) node: &'a Node,
    /// All nodes, itself among them.
    pub(crate) nodes: &'a [Node],
    /// All streams.
    pub(crate) streams: &'a [Stream],
    /// All tickets.
    pub(crate) tickets: &'a [Ticket],
}

impl Glance<'_> {
    /// Prints it.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        for (key, value) in self.rows() {
            line(Style::Bold, key, &value)?;
        }
        for words in health::advice(self.node, self.nodes) {
            line(Style::Red, "note", &words)?;
        }
        Ok(())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let node = self.node;
        let mut rows = vec![
            ("node", self.title()),
            ("uuid", node.uuid.to_string()),
            ("http", format!("{}/", self.base)),
            ("addresses", node.addresses.join(", ")),
            ("version", node.version.clone()),
        ];
        rows.extend(self.reach().map(|reach| ("reach", reach)));
        rows.extend([
            ("supernode", self.supernodes()),
            ("upload", upload(node)),
            ("network", self.network()),
            ("streams", self.streams()),
            ("tickets", self.tickets()),
        ]);
        rows
    }

    /// Name, role, and why it has that.
    fn title(&self) -> String {
        let node = self.node;
        let title = format!("{} ({})", node.name, role(node.role));
        match &node.role_reason {
            Some(reason) => format!("{title}: {reason}"),
            None => title,
        }
    }

    /// Whether strangers can connect to it.
    fn reach(&self) -> Option<String> {
        let reach = self.node.reachability.as_ref()?;
        let state = match reach.state {
            Reach::Reachable => "reachable",
            Reach::Unreachable => "not reachable",
            Reach::Unknown => "not known yet",
            Reach::Local => "this machine only",
        };
        let mut words = format!("{state}: {}", reach.why);
        if let Some(mapped) = &reach.mapped {
            words.push_str(&format!(" (the router forwards {mapped})"));
        }
        Some(words)
    }

    fn supernodes(&self) -> String {
        let node = self.node;
        if node.role == Role::Supernode {
            let (mesh, registered) = (node.mesh.len(), node.registered);
            return format!("itself; {registered} nodes registered, in a mesh with {mesh} others");
        }
        let Some(primary) = node.primary_supernode else {
            return NONE.to_owned();
        };
        let primary = self.named(primary);
        match node.backup_supernode {
            Some(backup) => format!("{primary}, backup {}", self.named(backup)),
            None => primary,
        }
    }

    fn network(&self) -> String {
        let others = self.nodes.iter().filter(|other| !other.is_self);
        let connected = others.clone().filter(|other| other.connected).count();
        format!(
            "{} other nodes known, {connected} connected",
            others.count()
        )
    }

    fn streams(&self) -> String {
        let of = |holds: &dyn Fn(&&Stream) -> bool| self.streams.iter().filter(holds).count();
        let own = of(&|stream| stream.publisher == self.node.uuid);
        let received = of(&|stream| stream.local.receiving);
        let known = self.streams.len();
        format!("{known} known, {own} published here, {received} received")
    }

    fn tickets(&self) -> String {
        let of = |state: TicketState, source: bool| {
            let ours = self.tickets.iter().filter(|ticket| ticket.state == state);
            ours.filter(|ticket| (ticket.source == self.node.uuid) == source)
                .count()
        };
        let (feeds, fed) = (
            of(TicketState::Active, true),
            of(TicketState::Active, false),
        );
        let standby = of(TicketState::Standby, false);
        format!("feeds {feeds}, is fed by {fed}, has {standby} on standby")
    }

    /// A node's name if it is known, else the beginning of its id.
    fn named(&self, id: NodeId) -> String {
        let known = self.nodes.iter().find(|node| node.uuid == id);
        match known {
            Some(node) => format!("{} {}", node.name, id.short()),
            None => id.short(),
        }
    }
}

fn line(style: Style, key: &str, value: &str) -> Result<(), Failure> {
    let key = term::styled(style, &format!("{key:<10}"));
    term::line(&format!("{key} {}", printable(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::fake;

    #[test]
    fn what_the_node_says_of_its_role_and_reach_is_there() {
        let mut node = fake::node();
        let (primary, backup) = (node["uuid"].clone(), "1d2f9a54-13d0-8e2b-9f00-3a5b6c7d8e90");
        node["primary_supernode"] = primary;
        node["backup_supernode"] = json!(backup);
        node["role_reason"] = json!("another one is near");
        node["reachability"] = json!({"state": "unreachable", "why": "two nodes tried in vain",
            "help": "forward UDP port 8000", "addresses": [], "mapped": null});
        let node: Node = from_value(node).unwrap();
        let nodes = [node.clone()];
        let glance = Glance {
            base: "http://x",
            node: &node,
            nodes: &nodes,
            streams: &[from_value(fake::stream("my-show", "x")).unwrap()],
            tickets: &[],
        };
        let rows: Vec<String> = glance
            .rows()
            .iter()
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        let text = rows.join("\n");
        for wanted in [
            "node box (node): another one is near",
            "reach not reachable: two nodes tried in vain",
            "supernode box 8c2f9a54",
            "backup 1d2f9a54",
            "streams 1 known, 1 published here, 1 received",
            "feeds 0",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }
}
