//! TLS with the certificates of `tests/fixtures`.

use polycast::config::{Config, FileFormat, Overrides};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, version};
use std::sync::Arc;

const CA: &[u8] = include_bytes!("../../tests/fixtures/ca.pem");

/// Where a fixture is.
pub(crate) fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    format!("{}/{name}", folder.replace("/fuzz/tests/", "/tests/"))
}

/// A configuration with one listener, whose certificate is a fixture.
pub(crate) fn config() -> Config {
    let (cert, key) = (file("localhost.pem"), file("localhost.key"));
    let pair = format!("{{ cert = '{cert}', key = '{key}' }}");
    let text = format!(
        "[[listeners]]\naddress = '127.0.0.1:0'\ntls.certificates = [{pair}]\n\
         [[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n\
         [timeouts]\nhandshake_ms = 3000\nhead_ms = 3000\nclose_ms = 2000\n"
    );
    let config = Config::parse_with(&text, FileFormat::Toml, "test", &|_| None);
    config.and_then(|config| config.with(Overrides::default())).expect("a configuration")
}

/// Clients of TLS 1.2 and of TLS 1.3 that trust the fixtures.
pub(crate) fn clients() -> [Arc<ClientConfig>; 2] {
    [&version::TLS12, &version::TLS13].map(|version| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).expect("a version");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    })
}
