//! The UDP socket that keeps the upload limit.
//!
//! Wraps quinn's own socket. A datagram that the gate of the [`Uplink`] does not let
//! through is answered like a full socket buffer (`WouldBlock`), and the poller wakes
//! its connection when there is room: quinn keeps the datagram and sends it then.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Sleep, sleep_until};

use crate::uplink::Uplink;

/// Bytes of an IPv4 header (RFC 791) and a UDP header (RFC 768).
const IPV4_HEADERS: usize = 20 + 8;
/// Bytes of an IPv6 header (RFC 8200) and a UDP header.
const IPV6_HEADERS: usize = 40 + 8;

/// A UDP socket behind the gate of an [`Uplink`].
#[derive(Debug)]
pub(super) struct ShapedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    uplink: Arc<Uplink>,
}

impl ShapedSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, uplink: Arc<Uplink>) -> Self {
        Self { inner, uplink }
    }
}

impl AsyncUdpSocket for ShapedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(ShapedPoller {
            inner: Arc::clone(&self.inner).create_io_poller(),
            uplink: Arc::clone(&self.uplink),
            shut: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let bytes = wire_bytes(transmit);
        if !self.uplink.pass(bytes) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = self.inner.try_send(transmit);
        match sent {
            Ok(()) => self.uplink.on_sent(bytes),
            Err(_) => self.uplink.give_back(bytes),
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        let shaped = self.uplink.segments_max();
        self.inner.max_transmit_segments().min(shaped)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// What `transmit` comes to at the network card, link headers apart.
fn wire_bytes(transmit: &Transmit<'_>) -> usize {
    let length = transmit.contents.len();
    let datagrams = transmit
        .segment_size
        .map_or(1, |size| length.div_ceil(size.max(1)));
    let headers = if transmit.destination.ip().to_canonical().is_ipv4() {
        IPV4_HEADERS
    } else {
        IPV6_HEADERS
    };
    length + datagrams * headers
}

/// Wakes one connection when gate and socket both take more.
#[derive(Debug)]
struct ShapedPoller {
    inner: Pin<Box<dyn UdpPoller>>,
    uplink: Arc<Uplink>,
    /// Runs while the gate is shut.
    shut: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for ShapedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(until) = self.uplink.shut_until() {
            let shut = self
                .shut
                .get_or_insert_with(|| Box::pin(sleep_until(until)));
            shut.as_mut().reset(until);
            ready!(shut.as_mut().poll(cx));
        }
        self.shut = None;
        self.inner.as_mut().poll_writable(cx)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    /// Notes what really goes into the socket below it, and when.
    #[derive(Debug)]
    pub(crate) struct Recorder {
        inner: Arc<dyn AsyncUdpSocket>,
        pub(crate) sent: Mutex<Vec<(Instant, usize)>>,
    }

    impl Recorder {
        pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
            Arc::new(Self {
                inner,
                sent: Mutex::default(),
            })
        }
    }

    impl AsyncUdpSocket for Recorder {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Arc::clone(&self.inner).create_io_poller()
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.inner.try_send(transmit)?;
            let sent = (Instant::now(), transmit.contents.len());
            self.sent.lock().unwrap().push(sent);
            Ok(())
        }

        fn poll_recv(
            &self,
            cx: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            self.inner.poll_recv(cx, bufs, meta)
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.inner.local_addr()
        }

        fn max_transmit_segments(&self) -> usize {
            self.inner.max_transmit_segments()
        }

        fn max_receive_segments(&self) -> usize {
            self.inner.max_receive_segments()
        }
    }

    #[test]
    fn every_datagram_of_a_batch_has_its_headers() {
        let transmit = |destination: &str, segment_size| Transmit {
            destination: destination.parse().unwrap(),
            ecn: None,
            contents: &[0; 2500],
            segment_size,
            src_ip: None,
        };
        assert_eq!(wire_bytes(&transmit("192.0.2.1:1", None)), 2528);
        assert_eq!(wire_bytes(&transmit("192.0.2.1:1", Some(1200))), 2584);
        assert_eq!(
            wire_bytes(&transmit("[::ffff:192.0.2.1]:1", Some(1200))),
            2584
        );
        assert_eq!(wire_bytes(&transmit("[2001:db8::1]:1", Some(1200))), 2644);
    }
}
