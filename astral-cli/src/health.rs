//! What is wrong with this node's reach, in words, and what would help.
//!
//! Judged by what the API tells: the node's own warnings, its addresses, its peers and
//! its upload. Nothing is found out here.

use std::net::{IpAddr, SocketAddr};

use astral_proto::api::Node;

use crate::format::rate;

/// Share of the upload limit, in percent, from which on there is no room for one more.
const FULL_PERCENT: u64 = 95;

/// What to say about this node, most important first; empty if all is well.
pub(crate) fn advice(node: &Node, nodes: &[Node]) -> Vec<String> {
    let mut advice = node.warnings.clone();
    advice.extend(peers(nodes));
    advice.extend(reach(node));
    advice.extend(upload(node));
    advice
}

fn peers(nodes: &[Node]) -> Option<String> {
    let others = nodes.iter().filter(|node| !node.is_self);
    let count = others.clone().count();
    if count == 0 {
        return Some(
            "it knows no other node, so only its own streams are here: start it with \
             --web URL of an astral-web, or --peer HOST:PORT of a node"
                .to_owned(),
        );
    }
    let connected = others.filter(|node| node.connected).count();
    (connected == 0).then(|| {
        format!(
            "it is connected to none of the {count} nodes that it knows: is the network up, and \
             may UDP pass the firewall?"
        )
    })
}

/// The node's own advice; where it gives none, what its addresses tell.
fn reach(node: &Node) -> Option<String> {
    if let Some(reachability) = &node.reachability {
        return reachability.help.clone();
    }
    let addresses: Vec<SocketAddr> = node
        .addresses
        .iter()
        .filter_map(|a| a.parse().ok())
        .collect();
    // A name was given by --advertise, and is taken at its word.
    if addresses.is_empty() || addresses.len() < node.addresses.len() {
        return None;
    }
    let all = |of: fn(IpAddr) -> bool| addresses.iter().all(|a| of(a.ip().to_canonical()));
    let port = addresses[0].port();
    if all(|ip| ip.is_loopback()) {
        return Some(
            "it knows of no address at which other machines reach it: if it listens on loopback \
             only, --quic 0.0.0.0:PORT changes that"
                .to_owned(),
        );
    }
    all(is_of_this_network).then(|| {
        format!(
            "from outside of this network nobody can dial it, though it dials others and is fed \
             and feeds over that: forwarding UDP port {port} at the router, and \
             --advertise PUBLIC-ADDRESS:{port}, would let everybody"
        )
    })
}

/// Whether an address leads nowhere from the Internet.
fn is_of_this_network(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

fn upload(node: &Node) -> Option<String> {
    let limit = node.upload_limit_bps?;
    if limit == 0 {
        return Some("it forwards nothing to others (upload limit 0)".to_owned());
    }
    let used = node.upload_used_bps?;
    let full = used.saturating_mul(100) >= limit.saturating_mul(FULL_PERCENT);
    full.then(|| {
        format!(
            "its upload of {} is used up, so new viewers are sent to others: \
             `astral settings upstream_limit RATE` changes that",
            rate(limit)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::fake;

    fn node(fields: Value) -> Node {
        let mut node = fake::node();
        for (key, value) in fields.as_object().unwrap() {
            node[key] = value.clone();
        }
        from_value(node).unwrap()
    }

    #[test]
    fn a_well_connected_node_with_upload_to_spare_hears_nothing() {
        let own = node(json!({"addresses": ["8.8.8.8:8000", "192.168.1.2:8000"]}));
        let other = node(json!({"self": false, "connected": true}));
        assert_eq!(advice(&own, &[own.clone(), other]), Vec::<String>::new());
    }

    #[test]
    fn what_the_node_found_out_itself_counts_more_than_its_addresses() {
        let other = node(json!({"self": false, "connected": true}));
        let reach = |help: Value| {
            let reach = json!({"state": "unreachable", "why": "nobody could", "help": help,
                "addresses": [], "mapped": null});
            node(json!({"addresses": ["10.1.2.3:9"], "reachability": reach}))
        };
        assert!(advice(&reach(Value::Null), std::slice::from_ref(&other)).is_empty());
        assert_eq!(
            advice(&reach(json!("open the port")), &[other]),
            ["open the port"]
        );
    }

    #[test]
    fn each_trouble_is_named_with_what_would_help() {
        let other = node(json!({"self": false, "connected": true}));
        let away = node(json!({"self": false}));
        let public = json!(["8.8.8.8:8000"]);
        let cases = [
            (json!({"addresses": public}), vec![], "--web URL"),
            (json!({"addresses": public}), vec![away], "firewall"),
            (
                json!({"addresses": ["127.0.0.1:9"]}),
                vec![other.clone()],
                "--quic",
            ),
            (
                json!({"addresses": ["10.1.2.3:9", "[fd00::1]:9"]}),
                vec![other.clone()],
                "UDP port 9",
            ),
            (
                json!({"addresses": ["100.64.0.1:9"]}),
                vec![other.clone()],
                "--advertise",
            ),
            (
                json!({"addresses": public, "upload_limit_bps": 0}),
                vec![other.clone()],
                "limit 0",
            ),
            (
                json!({"addresses": public, "upload_used_bps": 7_900_000}),
                vec![other.clone()],
                "`astral settings upstream_limit",
            ),
            (
                json!({"addresses": public, "warnings": ["the disk is full"]}),
                vec![other.clone()],
                "the disk is full",
            ),
        ];
        for (fields, others, wanted) in cases {
            let said = advice(&node(fields.clone()), &others);
            assert_eq!(said.len(), 1, "{fields}: {said:?}");
            assert!(said[0].contains(wanted), "{fields}: {said:?}");
        }
        let named = node(json!({"addresses": ["10.1.2.3:9", "home.example:9"]}));
        assert!(advice(&named, &[other]).is_empty());
    }
}
