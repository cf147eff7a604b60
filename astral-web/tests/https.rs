//! HTTPS with certificates of `astral-web dev-certs`.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use common::Server;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn dev_certs(out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astral-web"));
    command.arg("dev-certs").arg("--out").arg(out).args(more);
    command.output().unwrap()
}

fn start(certs: &Path) -> Server {
    Server::start_as(tempfile::tempdir().unwrap(), |command| {
        command.arg("--tls-cert").arg(certs.join("server.pem"));
        command.arg("--tls-key").arg(certs.join("server.key"));
    })
}

/// Asks for /health as `name`, trusting `ca`.
async fn ask(server: &Server, name: &str, ca: &Path) -> std::io::Result<StatusCode> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(server.address()).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let socket = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    let (mut client, serving) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let request = Request::get("/health").header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    tokio::pin!(serving);
    let answer = tokio::select! {
        answer = client.send_request(request) => answer.unwrap(),
        ended = &mut serving => panic!("{ended:?}"),
    };
    let status = answer.status();
    tokio::select! {
        body = answer.into_body().collect() => { body.unwrap(); }
        _ = &mut serving => {}
    }
    Ok(status)
}

#[tokio::test]
async fn made_certificates_serve_https_under_every_name_they_are_for() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let made = dev_certs(&certs, &["live.example"]);
    assert!(made.status.success(), "{made:?}");
    for key in ["ca.key", "server.key"] {
        let mode = std::fs::metadata(certs.join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let server = start(&certs);
    assert!(server.url().starts_with("https://"));
    let ready = std::fs::read_to_string(server.ready_file()).unwrap();
    assert!(ready.contains(server.url()), "{ready}");
    for name in ["localhost", "127.0.0.1", "::1", "live.example"] {
        let status = ask(&server, name, &certs.join("ca.pem")).await.unwrap();
        assert_eq!(status, 200, "{name}");
    }
    let stranger = ask(&server, "other.example", &certs.join("ca.pem")).await;
    assert!(stranger.is_err(), "the certificate is not for this name");
    let other = folder.path().join("other");
    assert!(dev_certs(&other, &[]).status.success());
    let distrusted = ask(&server, "localhost", &other.join("ca.pem")).await;
    assert!(distrusted.is_err(), "another CA did not sign it");
}

#[test]
fn certificates_are_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    assert!(dev_certs(folder.path(), &[]).status.success());
    let before = std::fs::read(folder.path().join("ca.pem")).unwrap();
    let again = dev_certs(folder.path(), &[]);
    assert_eq!(again.status.code(), Some(1));
    let words = String::from_utf8(again.stderr).unwrap();
    assert!(words.contains("--force"), "{words}");
    assert_eq!(std::fs::read(folder.path().join("ca.pem")).unwrap(), before);
    assert!(dev_certs(folder.path(), &["--force"]).status.success());
    assert_ne!(std::fs::read(folder.path().join("ca.pem")).unwrap(), before);
}

#[test]
fn key_of_another_certificate_is_refused_in_words() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(dev_certs(one.path(), &[]).status.success());
    assert!(dev_certs(two.path(), &[]).status.success());
    let mut command = common::command(one.path());
    command.arg("--tls-cert").arg(one.path().join("server.pem"));
    command.arg("--tls-key").arg(two.path().join("server.key"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("not that of the certificate"), "{words}");
}
