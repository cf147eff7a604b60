//! A node's key as a certificate, and TLS that takes any peer's.

use std::sync::Arc;

use astral_proto::ids::{NodeId, PublicKey, SecretKey};
use astral_proto::wire::ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// An Ed25519 key in PKCS #8 (RFC 8410 §7), up to its seed.
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// An Ed25519 key in SubjectPublicKeyInfo (RFC 8410 §4), up to the key.
const SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Who a peer says it is, and the key that it signs the handshake with.
pub struct Identity {
    /// The key of its records.
    pub key: SecretKey,
    certificate: CertificateDer<'static>,
    signs_with: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// An honest identity; the key's seed is `seed`, repeated.
    pub fn new(seed: u8) -> Self {
        Self::of(SecretKey::from_seed([seed; 32]))
    }

    /// An honest identity of this key.
    pub fn of(key: SecretKey) -> Self {
        let pkcs8 = PrivatePkcs8KeyDer::from([PKCS8, key.seed()].concat());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)
            .expect("a key pair");
        let params = rcgen::CertificateParams::new(["astral".to_owned()]).expect("a name");
        let certificate = params.self_signed(&pair).expect("a certificate");
        Self {
            key,
            certificate: certificate.der().clone(),
            signs_with: pkcs8,
        }
    }

    /// Presents the certificate of somebody whose key it does not have.
    pub fn with_certificate(mut self, stolen: CertificateDer<'static>) -> Self {
        self.certificate = stolen;
        self
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.key.public())
    }

    fn certified(&self) -> Arc<Always> {
        let key = self.signs_with.clone_key().into();
        let key = provider::sign::any_supported_type(&key).expect("an Ed25519 key");
        Arc::new(Always(Arc::new(CertifiedKey::new(
            vec![self.certificate.clone()],
            key,
        ))))
    }

    /// For incoming connections.
    pub fn server(&self) -> quinn::ServerConfig {
        let mut config = rustls::ServerConfig::builder_with_provider(crypto())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(Arc::new(Anyone))
            .with_cert_resolver(self.certified());
        config.alpn_protocols = vec![ALPN.to_vec()];
        let config = QuicServerConfig::try_from(config).expect("a QUIC cipher suite");
        quinn::ServerConfig::with_crypto(Arc::new(config))
    }

    /// For outgoing connections.
    pub fn client(&self) -> quinn::ClientConfig {
        let mut config = rustls::ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_client_cert_resolver(self.certified());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let config = QuicClientConfig::try_from(config).expect("a QUIC cipher suite");
        quinn::ClientConfig::new(Arc::new(config))
    }
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

/// The certificate that the peer of a connection presented.
pub fn certificate_of(conn: &quinn::Connection) -> CertificateDer<'static> {
    let identity = conn.peer_identity().expect("mutual TLS");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    chain.expect("certificates")[0].clone()
}

/// The key in it.
pub fn peer_key(conn: &quinn::Connection) -> PublicKey {
    let certificate = certificate_of(conn);
    let at = certificate
        .windows(SPKI.len())
        .position(|window| window == SPKI);
    let start = at.expect("an Ed25519 key") + SPKI.len();
    PublicKey(
        certificate[start..start + 32]
            .try_into()
            .expect("32 bytes of key"),
    )
}

/// Gives out one certificate, whatever is asked for and whether or not the key fits.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Takes every certificate; the handshake must be signed with its key all the same.
#[derive(Debug)]
struct Anyone;

impl Anyone {
    fn verify(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
