//! `astral-web dev-certs`: a certificate authority of one's own, and a certificate of
//! it for this server. For development and for friends who trust each other; a public
//! server takes its certificate from a public authority.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::config::DevCerts;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the authority's certificate holds.
const CA_DAYS: u32 = 3650;
/// How long the server's certificate holds: the most that all platforms take (825 days is
/// Apple's limit, 398 that of public authorities).
const SERVER_DAYS: u32 = 397;
/// Names that are always in it.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Files, in the order in which they are written.
const FILES: [&str; 4] = ["ca.key", "server.key", "ca.pem", "server.pem"];

/// Makes `ca.pem`, `ca.key`, `server.pem` and `server.key`, and says how to use them.
///
/// # Errors
/// Some of them are there already, a host name is none, or the folder cannot be written.
pub fn make(wanted: &DevCerts) -> anyhow::Result<()> {
    let out = &wanted.out;
    let there = FILES.iter().find(|file| out.join(file).exists());
    if let Some(file) = there
        && !wanted.force
    {
        bail!(
            "{} is there already; --force makes all of them anew, and then everybody who trusts \
             the old CA needs the new one",
            out.join(file).display()
        );
    }
    let (ca_key, server_key) = (KeyPair::generate()?, KeyPair::generate()?);
    let ca_secret = pem("PRIVATE KEY", &ca_key.serialize_der());
    let ca = CertifiedIssuer::self_signed(authority(), ca_key)?;
    let server = server(&wanted.hosts)?.signed_by(&server_key, &ca)?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let secret = pem("PRIVATE KEY", &server_key.serialize_der());
    write(&out.join("ca.key"), 0o600, &ca_secret)?;
    write(&out.join("server.key"), 0o600, &secret)?;
    write(&out.join("ca.pem"), 0o644, &pem("CERTIFICATE", ca.der()))?;
    write(
        &out.join("server.pem"),
        0o644,
        &pem("CERTIFICATE", server.der()),
    )?;
    say(wanted)
}

fn say(wanted: &DevCerts) -> anyhow::Result<()> {
    let out = wanted.out.display();
    let names: Vec<_> = LOCAL
        .into_iter()
        .chain(wanted.hosts.iter().map(String::as_str))
        .collect();
    writeln!(
        std::io::stdout(),
        "made {out}/ca.pem and {out}/server.pem, for {}\n\n\
         astral-web --tls-cert {out}/server.pem --tls-key {out}/server.key\n\
         astral-node --web https://localhost:8080 --web-ca {out}/ca.pem",
        names.join(", ")
    )?;
    Ok(())
}

fn authority() -> CertificateParams {
    let mut params = lasting(CertificateParams::default(), CA_DAYS);
    params
        .distinguished_name
        .push(DnType::CommonName, "Astral development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server(hosts: &[String]) -> anyhow::Result<CertificateParams> {
    let names: Vec<String> = LOCAL
        .map(str::to_owned)
        .into_iter()
        .chain(hosts.iter().cloned())
        .collect();
    let mut params = CertificateParams::new(names).context("a host is no name and no address")?;
    params
        .distinguished_name
        .push(DnType::CommonName, "astral-web (development)");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(lasting(params, SERVER_DAYS))
}

/// From yesterday, since clocks differ.
fn lasting(mut params: CertificateParams, days: u32) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

/// A new file, so that a key is never written into one that others may read.
fn write(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let what = || path.display().to_string();
    if path.exists() {
        fs::remove_file(path).with_context(what)?;
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)
}
