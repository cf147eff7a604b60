//! Dialling back: whether a node can be reached by somebody it has sent nothing to.
//!
//! Each probe leaves from a socket of its own: a firewall that lets answers in has seen
//! nothing go there, so only what it lets in unasked comes through. Whether somebody is
//! to be probed at all is not decided here.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use astral_proto::ids::PublicKey;
use astral_proto::wire::CloseCode;
use quinn::{ClientConfig, Endpoint, EndpointConfig, Runtime as _, TokioRuntime};

use super::peer_key;
use super::socket::ShapedSocket;
use super::tls::SERVER_NAME;
use crate::uplink::Uplink;

/// A node that does not answer within this cannot be reached.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Time for the farewell to leave the socket.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Dials nodes back.
#[derive(Clone)]
pub(crate) struct Prober {
    client: ClientConfig,
    uplink: Arc<Uplink>,
}

impl Prober {
    pub(super) fn new(client: ClientConfig, uplink: Arc<Uplink>) -> Self {
        Self { client, uplink }
    }

    /// Whether whoever holds `key` answers at `address`.
    pub(crate) async fn reaches(&self, key: PublicKey, address: SocketAddr) -> bool {
        let Ok(endpoint) = self.endpoint(address) else {
            return false;
        };
        let shaken = async {
            let connecting = endpoint.connect_with(self.client.clone(), address, SERVER_NAME);
            connecting.ok()?.await.ok()
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, shaken).await;
        let conn = answer.ok().flatten();
        let reached = conn.as_ref().and_then(peer_key) == Some(key);
        if let Some(conn) = conn {
            conn.close((CloseCode::Done as u32).into(), b"dialled back");
            let _ = tokio::time::timeout(CLOSE_WITHIN, endpoint.wait_idle()).await;
        }
        reached
    }

    fn endpoint(&self, to: SocketAddr) -> std::io::Result<Endpoint> {
        let any: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        let socket = Arc::new(ShapedSocket::new(socket, self.uplink.clone()));
        Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        )
    }
}
