//! Certificates that are listed as trusted and that the peer itself presents, as client and as
//! server and in both versions of TLS, against a peer of rustls.

use crate::certs::{Authority, Leaf, folder};
use polycast::tls::{
    self, Acceptor, Connector, Filter, Mutual, Offer, Setup, TlsFailure, TlsVersion,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The certificate chain that a peer presents, and the key that it signs with.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn of(leaf: &Leaf) -> Identity {
        Identity { chain: vec![leaf.cert.der().clone()], key: leaf.key_der() }
    }

    /// Reads a certificate and a key of the fixtures.
    fn read(name: &str, key: &str) -> Identity {
        let chain = vec![CertificateDer::from_pem_file(fixture(name)).unwrap()];
        Identity { chain, key: PrivateKeyDer::from_pem_file(fixture(key)).unwrap() }
    }

    pub(crate) fn resolver(&self) -> Arc<SingleCertAndKey> {
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(self.key.clone_key()).unwrap();
        // It is not checked that the key belongs to the certificate: a test presents a stolen
        // certificate.
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain.clone(), key)))
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A self-signed authority with a common name and no alternative name, as keytool creates it.
fn own(common: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Leaf { cert: params.self_signed(&key).unwrap(), key }
}

/// Creates a folder for one handshake, because tests run concurrently.
fn own_folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    folder(&format!("listed-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

fn roots(folder: &Path, listed: &[String]) -> tls::Roots {
    let file = folder.join("listed.pem");
    fs::write(&file, listed.concat()).unwrap();
    tls::roots(&file).unwrap()
}

/// Exchanges records. Returns whether our end has completed the handshake, and its error if it has
/// failed with one.
pub(crate) fn exchange(
    ours: &mut Filter,
    peer: &mut Connection,
) -> Result<(), Option<rustls::Error>> {
    let (mut opened, mut failed, mut peers) = (false, None, None);
    loop {
        let records = ours.take_records();
        let mut rest = &records[..];
        while !rest.is_empty() && peers.is_none() {
            peer.read_tls(&mut rest).unwrap();
            peers = peer.process_new_packets().err();
        }
        let mut answer = Vec::new();
        while peer.wants_write() {
            peer.write_tls(&mut answer).unwrap();
        }
        if records.is_empty() && answer.is_empty() {
            break;
        }
        let progress = ours.receive(&mut answer, &mut Vec::new());
        opened |= progress.opened;
        if let Some(TlsFailure::Protocol(error)) = progress.failed {
            failed.get_or_insert(error);
        }
    }
    match failed {
        None if opened => Ok(()),
        failed => Err(failed),
    }
}

/// The result of our connector's handshake with a server of this name.
fn upstream(
    name: &str,
    identity: &Identity,
    listed: &[String],
    version: &'static SupportedProtocolVersion,
) -> Result<(), Option<rustls::Error>> {
    let roots = Some(roots(&own_folder(), listed));
    let offer = Offer { roots, pair: None, min_version: TlsVersion::V12 };
    let mut ours = Connector::new(offer).unwrap().connect(name).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let config = builder.with_no_client_auth().with_cert_resolver(identity.resolver());
    let peer = ServerConnection::new(Arc::new(config)).unwrap();
    exchange(&mut ours, &mut peer.into())
}

/// The result of our acceptor's handshake with a client.
fn client(
    identity: &Identity,
    listed: &[String],
    version: &'static SupportedProtocolVersion,
) -> Result<(), Option<rustls::Error>> {
    let (authority, folder) = (Authority::new(), own_folder());
    authority.leaf(&["localhost"]).write(&folder, "server");
    let chain = tls::pem_chain(&folder.join("server.pem")).unwrap();
    let setup = Setup {
        pairs: vec![chain.with_key(&folder.join("server.key")).unwrap()],
        mutual: Mutual::Required,
        client_ca: Some(roots(&folder, listed)),
        min_version: TlsVersion::V12,
        alpn: &[],
    };
    let mut ours = Acceptor::new(setup).unwrap().accept().unwrap();
    let mut store = RootCertStore::empty();
    store.add(authority.der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(store);
    let config = builder.with_client_cert_resolver(identity.resolver());
    let peer = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let outcome = exchange(&mut ours, &mut peer.into());
    assert_eq!(ours.identity().is_some(), outcome.is_ok());
    outcome
}

/// The certificate error with which the handshake failed.
fn flaw(outcome: Result<(), Option<rustls::Error>>) -> CertificateError {
    match outcome {
        Err(Some(rustls::Error::InvalidCertificate(flaw))) => flaw,
        other => panic!("{other:?}"),
    }
}

fn is_name(flaw: &CertificateError) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(flaw, NotValidForName | NotValidForNameContext { .. })
}

#[test]
fn listed_upstream_is_accepted_by_its_common_name() {
    let backend = own("backend", |_| {});
    let (other, wild) = (own("other", |_| {}), own("*.a.example", |_| {}));
    let address = own("127.0.0.1", |_| {});
    for version in VERSIONS {
        let taken = |name: &str, leaf: &Leaf, listed: &[&Leaf]| {
            let listed: Vec<_> = listed.iter().map(|it| it.cert.pem()).collect();
            upstream(name, &Identity::of(leaf), &listed, version)
        };
        assert_eq!(taken("backend", &backend, &[&backend]), Ok(()));
        assert_eq!(taken("BACKEND", &backend, &[&other, &backend]), Ok(()));
        assert_eq!(taken("b.a.example", &wild, &[&wild]), Ok(()));
        assert_eq!(taken("127.0.0.1", &address, &[&address]), Ok(()));
        for (name, leaf) in [
            ("backend2", &backend),
            ("a.example", &wild),
            ("c.b.a.example", &wild),
            ("127.0.0.2", &address),
        ] {
            let flaw = flaw(taken(name, leaf, &[leaf]));
            assert!(is_name(&flaw), "{name} {flaw:?}");
        }
        // A certificate with the same name that is not the listed one.
        let twin = own("backend", |_| {});
        flaw(taken("backend", &twin, &[&backend]));
        flaw(taken("backend", &backend, &[&other]));
    }
}

#[test]
fn listed_upstream_with_alternative_names_is_known_by_these_alone() {
    let named = |alternative: SanType| {
        own("backend", |params| params.subject_alt_names = vec![alternative])
    };
    let dns = named(SanType::DnsName("other".try_into().unwrap()));
    let mail = named(SanType::Rfc822Name("a@backend".try_into().unwrap()));
    let ip = named(SanType::IpAddress([127, 0, 0, 1].into()));
    for version in VERSIONS {
        for (leaf, name, expected) in [
            (&dns, "other", true),
            (&dns, "backend", false),
            (&mail, "backend", false),
            (&ip, "127.0.0.1", true),
            (&ip, "backend", false),
        ] {
            let outcome = upstream(name, &Identity::of(leaf), &[leaf.cert.pem()], version);
            match expected {
                true => assert_eq!(outcome, Ok(()), "{name}"),
                false => assert!(is_name(&flaw(outcome)), "{name}"),
            }
        }
    }
}

#[test]
fn listed_authority_gives_no_meaning_to_the_common_names_that_it_signs() {
    let authority = Authority::new();
    let listed = [authority.pem()];
    let signed = authority.leaf(&["backend"]);
    let bare = authority.leaf_with(&["backend"], |params| params.subject_alt_names.clear());
    for version in VERSIONS {
        let taken = |name, leaf| upstream(name, &Identity::of(leaf), &listed, version);
        assert_eq!(taken("backend", &signed), Ok(()), "as ever");
        assert!(is_name(&flaw(taken("other", &signed))));
        assert!(is_name(&flaw(taken("backend", &bare))), "a common name alone");
        assert_eq!(client(&Identity::of(&signed), &listed, version), Ok(()), "as ever");
        let stranger = Authority::new().leaf(&["backend"]);
        flaw(client(&Identity::of(&stranger), &listed, version));
    }
}

#[test]
fn listed_certificates_have_their_dates_and_purposes() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    let dated = |from, until| {
        own("backend", |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
        })
    };
    let (expired, future) = (dated(2020, 2021), dated(2125, 2126));
    let purposes = |list: &[ExtendedKeyUsagePurpose]| {
        own("backend", |params| params.extended_key_usages = list.to_vec())
    };
    for version in VERSIONS {
        for (leaf, expected) in
            [(&expired, CertificateError::Expired), (&future, CertificateError::NotValidYet)]
        {
            let (identity, listed) = (Identity::of(leaf), [leaf.cert.pem()]);
            assert_eq!(flaw(upstream("backend", &identity, &listed, version)), expected);
            assert_eq!(flaw(client(&identity, &listed, version)), expected);
        }
        for (list, as_server, as_client) in [
            (&[ServerAuth][..], true, false),
            (&[ClientAuth], false, true),
            (&[ClientAuth, ServerAuth], true, true),
            (&[Any], true, true),
        ] {
            let leaf = purposes(list);
            let (identity, listed) = (Identity::of(&leaf), [leaf.cert.pem()]);
            let server = upstream("backend", &identity, &listed, version);
            let client = client(&identity, &listed, version);
            for (outcome, expected) in [(server, as_server), (client, as_client)] {
                match expected {
                    true => assert_eq!(outcome, Ok(()), "{list:?}"),
                    false => assert_eq!(flaw(outcome), CertificateError::InvalidPurpose),
                }
            }
        }
    }
}

#[test]
fn listed_client_is_accepted_with_any_name() {
    let (phone, other) = (own("phone", |_| {}), own("other", |_| {}));
    for version in VERSIONS {
        let listed = [other.cert.pem(), phone.cert.pem()];
        assert_eq!(client(&Identity::of(&phone), &listed, version), Ok(()));
        flaw(client(&Identity::of(&phone), &listed[..1], version));
        flaw(client(&Identity::of(&own("phone", |_| {})), &listed, version));
    }
}

#[test]
fn listed_certificate_without_its_key_is_refused() {
    let (backend, thief) = (own("backend", |_| {}), own("backend", |_| {}));
    let v1 = CertificateDer::from_pem_file(fixture("v1-ec.pem")).unwrap();
    for version in VERSIONS {
        for certificate in [backend.cert.der(), &v1] {
            let identity = Identity { chain: vec![certificate.clone()], key: thief.key_der() };
            let listed = [backend.cert.pem(), fs::read_to_string(fixture("v1-ec.pem")).unwrap()];
            let as_server = flaw(upstream("backend", &identity, &listed, version));
            let as_client = flaw(client(&identity, &listed, version));
            assert_eq!([as_server, as_client], [const { CertificateError::BadSignature }; 2]);
        }
    }
}

#[test]
fn listed_certificates_of_version_1_are_accepted_on_both_sides() {
    for version in VERSIONS {
        for name in ["v1-ec", "v1-rsa"] {
            let identity = Identity::read(&format!("{name}.pem"), &format!("{name}.key"));
            let listed = [fs::read_to_string(fixture(&format!("{name}.pem"))).unwrap()];
            assert_eq!(upstream("backend", &identity, &listed, version), Ok(()), "{name}");
            assert!(is_name(&flaw(upstream("other", &identity, &listed, version))), "{name}");
            assert_eq!(client(&identity, &listed, version), Ok(()), "{name}");
            let other = [own("backend", |_| {}).cert.pem()];
            flaw(upstream("backend", &identity, &other, version));
            flaw(client(&identity, &other, version));
        }
        let expired = Identity::read("v1-expired.pem", "v1-ec.key");
        let listed = [fs::read_to_string(fixture("v1-expired.pem")).unwrap()];
        let as_server = flaw(upstream("backend", &expired, &listed, version));
        let as_client = flaw(client(&expired, &listed, version));
        assert_eq!([as_server, as_client], [const { CertificateError::Expired }; 2]);
    }
}

#[test]
fn listed_certificates_of_version_1_can_be_our_own() {
    let pair =
        |key: &str| tls::pem_chain(&fixture("v1-ec.pem")).unwrap().with_key(&fixture(key)).unwrap();
    let roots = || Some(tls::roots(&fixture("v1-ec.pem")).unwrap());
    let (mutual, min_version) = (Mutual::Required, TlsVersion::V12);
    let setup = |key| {
        Acceptor::new(Setup {
            pairs: vec![pair(key)],
            mutual,
            client_ca: roots(),
            min_version,
            alpn: &[],
        })
    };
    let offer = |key| Connector::new(Offer { roots: roots(), pair: Some(pair(key)), min_version });
    let mut server = setup("v1-ec.key").unwrap().accept().unwrap();
    let mut client = offer("v1-ec.key").unwrap().connect("backend").unwrap();
    while client.has_records() || server.has_records() {
        server.receive(&mut client.take_records(), &mut Vec::new());
        client.receive(&mut server.take_records(), &mut Vec::new());
    }
    assert!(!client.is_handshaking() && server.identity().is_some());
    assert!(setup("v1-rsa.key").is_err() && offer("v1-rsa.key").is_err(), "of another key");
}
