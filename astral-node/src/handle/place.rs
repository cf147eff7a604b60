//! What a node is in the network, and whether strangers reach it, in words.

use astral_proto::api::{Reach, Reachability};
use astral_proto::overlay::{PlaceView, Standing};
use astral_proto::record::Address;

/// How this node's reach is shown; `port` is that of its UDP socket.
pub(super) fn reachability(place: &PlaceView, mapped: Option<Address>, port: u16) -> Reachability {
    let texts = |addresses: &[Address]| -> Vec<String> {
        addresses.iter().map(|at| at.0.to_string()).collect()
    };
    let addresses = texts(&place.reached);
    let (state, why, help) = match place.standing {
        Standing::Reachable => {
            let why = format!("others have connected to it at {}", addresses.join(" and "));
            (Reach::Reachable, why, None)
        }
        Standing::Unreachable => {
            let tried = match place.denials {
                1 => "a node has".to_owned(),
                many => format!("{many} nodes have"),
            };
            let why = format!("{tried} tried to connect to it, and could not");
            (Reach::Unreachable, why, Some(help(mapped, port)))
        }
        Standing::Unproven => {
            let why = "no other node has tried to connect to it yet".into();
            (Reach::Unknown, why, None)
        }
        Standing::Local => {
            let why = "it knows nodes of this machine only, or none".into();
            (Reach::Local, why, None)
        }
    };
    Reachability {
        state,
        why,
        help,
        addresses,
        mapped: mapped.map(|at| at.0.to_string()),
    }
}

fn help(mapped: Option<Address>, port: u16) -> String {
    match mapped {
        Some(at) => format!(
            "the router forwards {} to this machine, but a firewall drops what comes in on UDP port {port}: \
             allow it",
            at.0
        ),
        None => format!(
            "allow UDP port {port} in the firewall and forward it in the router, or switch on UPnP, NAT-PMP \
             or PCP there; until then it watches, publishes and forwards over its own connections only"
        ),
    }
}

#[cfg(test)]
mod tests {
    use astral_proto::overlay::RoleReason;
    use astral_proto::record::Role;

    use super::*;

    #[test]
    fn unreachable_node_is_told_which_port_to_open() {
        let place = PlaceView {
            role: Role::Node,
            reason: RoleReason::Unreachable,
            primary: None,
            backup: None,
            mesh: Vec::new(),
            registered: 0,
            standing: Standing::Unreachable,
            reached: Vec::new(),
            denials: 2,
        };
        let shown = reachability(&place, None, 8000);
        assert_eq!(shown.state, Reach::Unreachable);
        assert!(shown.why.contains("2 nodes"), "{}", shown.why);
        assert!(shown.help.unwrap().contains("UDP port 8000"));
        let mapped = Address("203.0.113.5:9000".parse().unwrap());
        let shown = reachability(&place, Some(mapped), 8000);
        assert!(shown.help.unwrap().contains("203.0.113.5:9000"));
    }
}
