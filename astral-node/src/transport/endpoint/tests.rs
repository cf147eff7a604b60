use quinn::AsyncUdpSocket;
use tokio::time::Instant;

use super::super::socket::tests::Recorder;
use super::super::tls::tests::{anonymous, identity, impostor};
use super::super::{Admission, Gatekeeper, peer_key};
use super::*;
use crate::uplink::Class;

fn node(seed: u8) -> (Endpoint, SocketAddr) {
    let config = Config::default_in("/d");
    let key = SecretKey::from_seed([seed; 32]);
    let (endpoint, address, _) = bind(&config, &key, Arc::new(Uplink::new(None))).unwrap();
    (endpoint, address)
}

async fn accept(endpoint: &Endpoint) -> Result<Connection, HandshakeError> {
    let incoming = endpoint.accept().await.unwrap();
    let Admission::Accept(mut admitted) = Gatekeeper::default().admit(&incoming) else {
        panic!("the first one is admitted");
    };
    let connection = handshake(incoming.accept()?).await;
    admitted.established();
    connection
}

#[tokio::test]
async fn two_nodes_connect_and_each_knows_the_key_of_the_other() {
    let ((client, _), (server, address)) = (node(1), node(2));
    let (out, back) = tokio::join!(connect(&client, address), accept(&server));
    let key = |seed| Some(SecretKey::from_seed([seed; 32]).public());
    let (out, back) = (out.unwrap(), back.unwrap());
    assert_eq!(peer_key(&out), key(2));
    assert_eq!(peer_key(&back), key(1));
    let handshake = out.handshake_data().unwrap();
    let data = handshake
        .downcast::<quinn::crypto::rustls::HandshakeData>()
        .unwrap();
    assert_eq!(data.protocol.as_deref(), Some(b"astral/1".as_slice()));
    assert!(out.max_datagram_size().unwrap() >= 1_100);
}

/// How a connection with these credentials ends, as the server sees it.
async fn refused(client: quinn::crypto::rustls::QuicClientConfig) -> HandshakeError {
    let ((endpoint, _), (server, address)) = (node(1), node(2));
    let client = ClientConfig::new(Arc::new(client));
    let connecting = endpoint.connect_with(client, address, SERVER_NAME).unwrap();
    // The client may believe itself connected until the server's refusal arrives.
    let (_out, back) = tokio::join!(connecting, accept(&server));
    back.unwrap_err()
}

#[tokio::test]
async fn certificate_of_another_without_its_key_is_refused() {
    let error = refused(impostor(3, 1)).await.to_string();
    assert!(
        error.contains("signature") || error.contains("Signature"),
        "{error}"
    );
}

#[tokio::test]
async fn client_without_certificate_is_refused() {
    let error = refused(anonymous()).await.to_string();
    assert!(error.contains("ertificate"), "{error}");
}

#[tokio::test]
async fn client_with_its_own_certificate_is_not_refused_by_the_same_path() {
    let ((endpoint, _), (server, address)) = (node(1), node(2));
    let client = ClientConfig::new(Arc::new(identity(3).client().unwrap()));
    let connecting = endpoint.connect_with(client, address, SERVER_NAME).unwrap();
    let (out, back) = tokio::join!(connecting, accept(&server));
    let key = SecretKey::from_seed([3; 32]).public();
    assert_eq!(peer_key(&back.unwrap()), Some(key));
    drop(out);
}

#[tokio::test]
async fn dual_stack_socket_reaches_ipv4() {
    let config = Config {
        quic: Some((Ipv6Addr::UNSPECIFIED, 0).into()),
        ..Config::default_in("/d")
    };
    let key = SecretKey::from_seed([1; 32]);
    let Ok((client, ..)) = bind(&config, &key, Arc::new(Uplink::new(None))) else {
        return; // This machine has no IPv6.
    };
    let (server, address) = node(2);
    let (out, back) = tokio::join!(connect(&client, address), accept(&server));
    assert!(out.is_ok() && back.is_ok());
}

#[tokio::test]
async fn taken_address_is_an_error_that_names_it() {
    let (_held, address) = node(1);
    let config = Config {
        quic: Some(address),
        ..Config::default_in("/d")
    };
    let key = SecretKey::from_seed([1; 32]);
    let bound = bind(&config, &key, Arc::new(Uplink::new(None)));
    let error = bound.err().expect("the address is taken");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("--quic"), "{error}");
}

#[test]
fn systems_without_ipv6_are_recognised() {
    assert!(has_no_ipv6(&io::Error::from_raw_os_error(97)));
    assert!(has_no_ipv6(&io::ErrorKind::AddrNotAvailable.into()));
    assert!(!has_no_ipv6(&io::ErrorKind::AddrInUse.into()));
}

/// An endpoint like that of [`bind`], whose socket notes what passes the gate.
fn recorded(seed: u8, uplink: &Arc<Uplink>) -> (Endpoint, Arc<Recorder>) {
    let (socket, _) = open_socket(Config::default_in("/d").quic).unwrap();
    let socket: Arc<dyn AsyncUdpSocket> = TokioRuntime.wrap_udp_socket(socket).unwrap();
    let recorder = Recorder::new(socket);
    let below: Arc<dyn AsyncUdpSocket> = Arc::<Recorder>::clone(&recorder);
    let shaped = ShapedSocket::new(below, Arc::clone(uplink));
    let mut endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::new(shaped),
        Arc::new(TokioRuntime),
    )
    .unwrap();
    let transport = Arc::new(transport(Congestion::Cubic));
    endpoint.set_default_client_config(client(&identity(seed), &transport).unwrap());
    (endpoint, recorder)
}

/// Reads whatever comes on every stream until the connection closes.
async fn swallow(connection: Connection) {
    while let Ok(mut incoming) = connection.accept_uni().await {
        tokio::spawn(async move {
            while let Ok(Some(_)) = incoming.read_chunk(usize::MAX, true).await {}
        });
    }
}

async fn flood(connection: &Connection, span: Duration) {
    let mut out = connection.open_uni().await.unwrap();
    let chunk = [7; 16 * 1024];
    let all = async { while out.write_all(&chunk).await.is_ok() {} };
    let _until_then = tokio::time::timeout(span, all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooding_connections_stay_within_the_limit_and_use_it() {
    const LIMIT_BPS: u64 = 5_000_000;
    let uplink = Arc::new(Uplink::new(Some(LIMIT_BPS)));
    let (client, recorder) = recorded(1, &uplink);
    let (server, address) = node(2);
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let connection = handshake(incoming.accept().unwrap()).await.unwrap();
            tokio::spawn(swallow(connection));
        }
    });
    let one = connect(&client, address).await.unwrap();
    let two = connect(&client, address).await.unwrap();
    let start = Instant::now();
    let span = Duration::from_secs(3);
    tokio::join!(flood(&one, span), flood(&two, span));
    let used = uplink.used_bps();

    let sent: Vec<(Duration, u64)> = recorder
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|(at, bytes)| (at.saturating_duration_since(start), *bytes as u64 * 8))
        .collect();
    let between = |from: Duration, to: Duration| -> u64 {
        let within = sent.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, bits)| bits).sum()
    };
    let step = Duration::from_millis(10);
    let second = Duration::from_secs(1);
    let worst = (0..=200)
        .map(|i| between(step * i, step * i + second))
        .max();
    let at_once = (0..=300).map(|i| between(step * i, step * i + step)).max();
    // The clock is read after the gate, so a thread put aside between blurs it a little.
    assert!(
        worst.unwrap() <= LIMIT_BPS * 102 / 100,
        "a second carried {worst:?} bits"
    );
    assert!(
        at_once.unwrap() <= LIMIT_BPS / 8,
        "10 ms carried {at_once:?} bits"
    );
    let average = between(Duration::ZERO, span) / 3;
    assert!(
        average * 100 >= LIMIT_BPS * 90,
        "{average} bit/s on average"
    );
    assert!(
        used * 100 >= LIMIT_BPS * 90 && used <= LIMIT_BPS * 102 / 100,
        "{used}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_who_wait_for_their_turn_hardly_ever_meet_a_shut_gate() {
    let uplink = Arc::new(Uplink::new(Some(5_000_000)));
    let (client, _recorder) = recorded(1, &uplink);
    let (server, address) = node(2);
    tokio::spawn(async move {
        let incoming = server.accept().await.unwrap();
        swallow(handshake(incoming.accept().unwrap()).await.unwrap()).await;
    });
    let connection = connect(&client, address).await.unwrap();
    let mut out = connection.open_uni().await.unwrap();
    let start = Instant::now();
    let (mut asked, mut shut) = (0_u32, 0_u32);
    while start.elapsed() < Duration::from_secs(2) {
        uplink.acquire(Class::Video, 1, 1, 4_096).await;
        asked += 1;
        shut += u32::from(uplink.shut_until().is_some());
        out.write_all(&[7; 4_096]).await.unwrap();
    }
    println!("shut {shut} of {asked} times");
    assert!(asked > 250, "{asked} turns");
    assert!(shut * 10 < asked, "shut {shut} of {asked} times");
}

#[tokio::test]
async fn dial_back_reaches_the_right_key_only_and_comes_from_another_port() {
    let config = Config::default_in("/d");
    let (key, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([3; 32]));
    let (_endpoint, own, prober) = bind(&config, &key, Arc::new(Uplink::new(None))).unwrap();
    let (server, address) = node(2);
    let asked = SecretKey::from_seed([2; 32]).public();
    let (reached, back) = tokio::join!(prober.reaches(asked, address), accept(&server));
    assert!(reached);
    let back = back.unwrap();
    assert_eq!(peer_key(&back), Some(key.public()));
    assert_ne!(back.remote_address().port(), own.port());
    let (reached, _) = tokio::join!(prober.reaches(other.public(), address), accept(&server));
    assert!(!reached, "another key answers there");
    drop(server);
}
