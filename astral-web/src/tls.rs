//! HTTPS: certificate and key from files, TLS 1.3 by rustls over aws-lc-rs.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Reads the files.
///
/// # Errors
/// One cannot be read or has no certificate or key in it, or they do not fit together.
pub(crate) fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let what = || format!("--tls-cert {}", files.cert.display());
    let chain = CertificateDer::pem_file_iter(&files.cert).with_context(what)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().with_context(what)?;
    anyhow::ensure!(
        !chain.is_empty(),
        "{}: no certificate is in it (PEM)",
        what()
    );
    let what = || format!("--tls-key {}", files.key.display());
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(what)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the key of --tls-key is not that of the certificate of --tls-cert")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
