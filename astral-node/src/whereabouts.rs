//! Where this node may be reached: the addresses of its interfaces, which change when a
//! laptop moves, and the address that a router forwards to it.
//!
//! The router is asked by UPnP, NAT-PMP and PCP (`portmapper`), only if this node's own
//! address is a private one: elsewhere there is nothing to map. Whether an address is of
//! any use is found out by the overlay, which has others dial it.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use astral_proto::overlay::Event;
use astral_proto::record::Address;
use tracing::info;

use crate::handle::Handle;
use crate::node::own_addresses;

/// How often the addresses are looked at: no packet is sent for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells the overlay where this node may be reached, for as long as it runs.
pub(crate) async fn watch(handle: Handle) {
    let quic = handle.inner().addresses.quic;
    let stop = handle.inner().shutdown.clone();
    let Some(port) = NonZeroU16::new(quic.port()).filter(|_| !quic.ip().is_loopback()) else {
        return;
    };
    let mapper = portmapper::Client::default();
    let mut external = mapper.watch_external_address();
    let mut told: Option<(Vec<Address>, Option<Address>)> = None;
    loop {
        let own: Vec<Address> = own_addresses(&handle.config(), quic)
            .into_iter()
            .filter(|address| !address.is_loopback())
            .collect();
        let moved = told.as_ref().is_none_or(|(before, _)| *before != own);
        if moved {
            mapper.deactivate();
            if own.iter().any(|address| is_behind_router(address.0.ip())) {
                mapper.update_local_port(port);
            }
        }
        let mapped = external.borrow_and_update().map(|at| Address(at.into()));
        if told.as_ref() != Some(&(own.clone(), mapped)) {
            if told.is_some() {
                info!(addresses = ?own, ?mapped, "this node's addresses have changed");
            }
            told = Some((own.clone(), mapped));
            handle.set_mapped(mapped);
            let addresses = own.into_iter().chain(mapped).collect();
            let event = Event::Whereabouts { addresses };
            handle.inner().inbox.event(event, String::new()).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Ok(()) = external.changed() => {}
            () = stop.cancelled() => break,
        }
    }
    mapper.deactivate();
}

/// Whether an address is one that a router translates (RFC 1918, RFC 6598).
fn is_behind_router(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || is_shared(ip),
        IpAddr::V6(_) => false,
    }
}

/// 100.64.0.0/10, of carriers' own routers.
fn is_shared(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_addresses_ask_a_router() {
        for (ip, behind) in [
            ("192.168.1.7", true),
            ("10.0.0.1", true),
            ("100.64.0.9", true),
            ("100.128.0.9", false),
            ("203.0.113.5", false),
            ("2001:db8::5", false),
            ("::ffff:192.168.1.7", true),
        ] {
            assert_eq!(is_behind_router(ip.parse().unwrap()), behind, "{ip}");
        }
    }
}
