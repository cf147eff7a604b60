//! An astral-web behind https.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

/// A listener whose certificate, for `localhost`, is signed by the CA in the file.
struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl TlsListener {
    async fn bind(dir: &std::path::Path) -> (Self, PathBuf) {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let path = dir.join("ca.pem");
        let base64 = base64::engine::general_purpose::STANDARD.encode(ca.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        std::fs::write(&path, pem).unwrap();
        let key = KeyPair::generate().unwrap();
        let name = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = name.signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self { tcp, tls }, path)
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (socket, from) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.tls.accept(socket).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[tokio::test]
async fn an_https_astral_web_is_believed_if_the_given_ca_vouches_for_it_and_else_not() {
    let dir = TempDir::new().unwrap();
    let (listener, ca) = TlsListener::bind(dir.path()).await;
    let port = listener.tcp.local_addr().unwrap().port();
    let lists = Shared::default();
    let app = Router::new()
        .route("/api/v1/bootstrap", get(bootstrap))
        .with_state(lists);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let url = format!("https://localhost:{port}");
    let with = |ca: Option<&std::path::Path>| trust(ca, std::slice::from_ref(&url)).unwrap();
    let mut believing = Client::new(&url, with(Some(&ca)));
    assert!(matches!(believing.bootstrap().await, Ok(Answer::New(_))));

    let mut doubting = Client::new(&url, with(None));
    let error = doubting.bootstrap().await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // The certificate is for another name.
    let address = format!("https://127.0.0.1:{port}");
    let mut misled = Client::new(&address, with(Some(&ca)));
    let error = misled.bootstrap().await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn a_ca_file_that_is_none_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ca.pem");
    let refused = || format!("{:#}", trust(Some(&path), &[]).unwrap_err());
    assert!(refused().contains("ca.pem"));
    std::fs::write(&path, "no certificate").unwrap();
    assert!(refused().contains("no certificate in it"), "{}", refused());
}
