//! Mutual TLS 1.3 between nodes (RFC 8446), with the node's own key as its certificate.
//!
//! The certificate is a self-signed X.509 wrapper around the Ed25519 key, as a QUIC
//! stack wants one; nothing in it counts but that key. A peer has proved that it holds
//! it by its handshake signature (RFC 8410 names, RFC 8446 §4.4.3), which both sides
//! check. Whether it is the *expected* peer is for the caller, by [`peer_key`].
//!
//! Deliberately absent: authorities, names, expiry, resumption and early data.

use std::sync::Arc;

use astral_proto::ids::{PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Protocol name and version (ALPN, RFC 7301).
pub(super) const ALPN: &[u8] = b"astral/1";
/// The same for every node, so that an observer learns no id from it.
pub(super) const SERVER_NAME: &str = "astral";
/// Longest certificate that is looked at, in bytes; ours have about 300.
const CERTIFICATE_BYTES_MAX: usize = 2048;

/// An Ed25519 key in PKCS #8 (RFC 8410 §7), up to its seed.
const PKCS8_PREFIX: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// An Ed25519 key in SubjectPublicKeyInfo (RFC 8410 §4), up to the key.
const SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// What follows the signed part of an Ed25519 certificate, up to the signature: the
/// algorithm's name and the head of a bit string (RFC 5280 §4.1.1).
const SIGNATURE_PREFIX: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\x03\x41\x00";

/// A node's certificate and key, for both directions.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    pub(super) fn new(key: &SecretKey) -> Result<Self, rcgen::Error> {
        let key = PrivatePkcs8KeyDer::from([PKCS8_PREFIX, key.seed()].concat());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)?;
        let mut params = rcgen::CertificateParams::new([SERVER_NAME.to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let certificate = params.self_signed(&pair)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key,
        })
    }

    /// For incoming connections.
    pub(super) fn server(&self) -> Result<QuicServerConfig, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Peers::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Peers))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // No tickets: a resumed session would skip the proof of the key.
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
    }

    /// For outgoing connections.
    pub(super) fn client(&self) -> Result<QuicClientConfig, Error> {
        let mut config = rustls::ClientConfig::builder_with_provider(Peers::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Peers))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
    }
}

/// The key that the peer of an established connection has proved to hold.
pub(crate) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    key_of(chain.first()?).ok()
}

/// The Ed25519 key of a certificate that is signed with it.
fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, CertificateError> {
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateError::BadEncoding);
    }
    let parsed =
        ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let spki = parsed.subject_public_key_info();
    let key: [u8; PUBLIC_KEY_LEN] = spki
        .strip_prefix(SPKI_PREFIX)
        .and_then(|key| key.try_into().ok())
        .ok_or(CertificateError::BadEncoding)?;
    let (signed, signature) = signed_part(certificate).ok_or(CertificateError::BadEncoding)?;
    UnparsedPublicKey::new(&ED25519, &key)
        .verify(signed, signature)
        .map_err(|_| CertificateError::BadSignature)?;
    Ok(PublicKey(key))
}

/// Takes a certificate that has been parsed apart: a sequence of what is signed, the
/// algorithm and the signature.
fn signed_part(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let content = match certificate {
        [0x30, 0x82, _, _, content @ ..] | [0x30, 0x81, _, content @ ..] => content,
        _ => return None,
    };
    let (rest, signature) = content.split_at_checked(content.len().checked_sub(SIGNATURE_LEN)?)?;
    Some((rest.strip_suffix(SIGNATURE_PREFIX)?, signature))
}

/// Checks peers, whichever side they are on.
#[derive(Debug)]
struct Peers;

impl Peers {
    fn provider() -> Arc<CryptoProvider> {
        Arc::new(provider::default_provider())
    }

    fn check(certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !chain.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        key_of(certificate).map(drop).map_err(Error::from)
    }

    fn check_handshake(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &provider::default_provider().signature_verification_algorithms,
        )
    }

    fn no_tls12() -> Error {
        Error::General("TLS 1.2 is not spoken here".to_owned())
    }
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(certificate, chain).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_handshake(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(certificate, chain).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_handshake(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn identity(seed: u8) -> Identity {
        Identity::new(&SecretKey::from_seed([seed; 32])).unwrap()
    }

    /// A client without any certificate.
    pub(crate) fn anonymous() -> QuicClientConfig {
        let mut config = rustls::ClientConfig::builder_with_provider(Peers::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Peers))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.try_into().unwrap()
    }

    /// The certificate of one key with the other key. rustls refuses to configure this,
    /// so an own resolver hands it out.
    pub(crate) fn impostor(victim: u8, own: u8) -> QuicClientConfig {
        #[derive(Debug)]
        struct Stolen(Arc<rustls::sign::CertifiedKey>);
        impl rustls::client::ResolvesClientCert for Stolen {
            fn resolve(
                &self,
                _: &[&[u8]],
                _: &[SignatureScheme],
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(Arc::clone(&self.0))
            }

            fn has_certs(&self) -> bool {
                true
            }
        }
        let key = identity(own).key.clone_key().into();
        let key = provider::sign::any_supported_type(&key).unwrap();
        let chain = vec![identity(victim).certificate];
        let stolen = rustls::sign::CertifiedKey::new(chain, key);
        let mut config = rustls::ClientConfig::builder_with_provider(Peers::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Peers))
            .with_client_cert_resolver(Arc::new(Stolen(Arc::new(stolen))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.try_into().unwrap()
    }

    #[test]
    fn certificate_carries_the_node_key() {
        for seed in 0..50 {
            let key = SecretKey::from_seed([seed; 32]).public();
            assert_eq!(key_of(&identity(seed).certificate), Ok(key));
        }
    }

    #[test]
    fn altered_certificate_is_refused_whatever_bit_was_changed() {
        let certificate = identity(1).certificate;
        for bit in 0..certificate.len() * 8 {
            let mut bytes = certificate.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(key_of(&bytes.into()).is_err(), "bit {bit}");
        }
        for length in 0..certificate.len() {
            assert!(key_of(&certificate[..length].into()).is_err());
        }
    }

    #[test]
    fn certificate_signed_by_another_key_is_refused() {
        let pair = |seed: u8| {
            let key = identity(seed).key;
            rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519).unwrap()
        };
        let params = rcgen::CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        let issuer = rcgen::Issuer::new(params.clone(), pair(2));
        let certificate = params.signed_by(&pair(1), &issuer).unwrap();
        let refused = key_of(certificate.der());
        assert_eq!(refused, Err(CertificateError::BadSignature));
    }

    #[test]
    fn certificate_of_another_kind_of_key_is_refused() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair);
        assert!(key_of(certificate.unwrap().der()).is_err());
    }
}
