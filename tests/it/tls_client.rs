//! The TLS connector for upstreams, against the server's own acceptor.

use crate::certs::{Authority, Leaf, folder};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, LocalKeyId, PrivateKey, PrivateKeyChain};
use polycast::config::{Config, EndpointKind, FileFormat};
use polycast::mem::Segment;
use polycast::runtime;
use polycast::tls::{
    self, Acceptor, Connector, Filter, Mutual, Offer, Setup, TlsFailure, TlsVersion,
};
use std::fs;
use std::path::Path;

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

fn pair(leaf: &Leaf, folder: &Path, name: &str) -> tls::Pair {
    leaf.write(folder, name);
    let chain = tls::pem_chain(&folder.join(format!("{name}.pem"))).unwrap();
    chain.with_key(&folder.join(format!("{name}.key"))).unwrap()
}

fn roots(authority: &Authority, folder: &Path) -> tls::Roots {
    let file = folder.join("ca.pem");
    fs::write(&file, authority.pem()).unwrap();
    tls::roots(&file).unwrap()
}

/// An acceptor with a certificate for `localhost` and 127.0.0.1.
fn acceptor(authority: &Authority, folder: &Path, mutual: Mutual, version: TlsVersion) -> Acceptor {
    let pairs = vec![pair(&authority.leaf(&["localhost", "127.0.0.1"]), folder, "server")];
    let client_ca = (mutual != Mutual::None).then(|| roots(authority, folder));
    let alpn = ["http/1.1".to_owned()];
    let setup = Setup { pairs, mutual, client_ca, min_version: version, alpn: &alpn };
    Acceptor::new(setup).unwrap()
}

fn connector(authority: &Authority, folder: &Path, pair: Option<tls::Pair>) -> Connector {
    let offer = Offer { roots: Some(roots(authority, folder)), pair, min_version: TlsVersion::V12 };
    Connector::new(offer).unwrap()
}

/// One end of a connection, and the plaintext that it has received.
struct End {
    filter: Filter,
    plain: Vec<u8>,
    opened: bool,
    ended: bool,
    failed: Option<TlsFailure>,
}

impl End {
    fn new(filter: Filter) -> End {
        End { filter, plain: Vec::new(), opened: false, ended: false, failed: None }
    }

    fn receive(&mut self, bytes: &[u8], every: usize) {
        for piece in bytes.chunks(every) {
            let progress = self.filter.receive(&mut piece.to_vec(), &mut self.plain);
            self.opened |= progress.opened;
            self.ended |= progress.ended;
            self.failed = progress.failed.or(self.failed.take());
        }
    }

    fn say(&mut self, plain: &[u8]) {
        let batch = [Segment::Own(plain.to_vec())];
        assert!(self.filter.seal(&batch, &mut Vec::new()));
    }
}

/// Exchanges records in pieces of `every` bytes until neither end has any.
fn exchange(client: &mut End, server: &mut End, every: usize) {
    while client.filter.has_records() || server.filter.has_records() {
        server.receive(&client.filter.take_records(), every);
        client.receive(&server.filter.take_records(), every);
    }
}

fn meet(acceptor: &Acceptor, connector: &Connector, name: &str, every: usize) -> (End, End) {
    let mut client = End::new(connector.connect(name).unwrap());
    let mut server = End::new(acceptor.accept().unwrap());
    assert!(client.filter.has_records(), "it has the first word");
    exchange(&mut client, &mut server, every);
    (client, server)
}

#[test]
fn tls_client_handshake_works_at_every_cut() {
    let (authority, folder) = (Authority::new(), folder("client"));
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let acceptor = acceptor(&authority, &folder, Mutual::None, version);
        let roots = Some(roots(&authority, &folder));
        let offer = Offer { roots, pair: None, min_version: TlsVersion::V12 };
        let connector = Connector::new(offer).unwrap();
        for every in [usize::MAX, 1, 2, 5, 100] {
            let (mut client, mut server) = meet(&acceptor, &connector, "localhost", every);
            assert!(client.opened && server.opened);
            assert!(!client.filter.is_handshaking());
            assert_eq!(client.filter.identity(), None, "a server is no client");
            assert_eq!(client.filter.is_resumed(), every != usize::MAX, "all but the first");
            let long: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
            client.say(b"hello");
            server.say(&long);
            exchange(&mut client, &mut server, every);
            assert_eq!(server.plain, b"hello");
            assert!(client.plain == long);
            client.filter.end();
            exchange(&mut client, &mut server, every);
            assert!(server.ended && server.filter.has_ended() && !client.ended);
            server.filter.end();
            assert!(server.filter.has_records(), "the last word");
        }
    }
}

#[test]
fn tls_client_checks_name_and_issuer_of_the_server() {
    let (authority, folder) = (Authority::new(), folder("client-names"));
    let acceptor = acceptor(&authority, &folder, Mutual::None, TlsVersion::V12);
    let trusting = connector(&authority, &folder, None);
    let stranger = connector(&Authority::new(), &folder, None);
    let system = Offer { roots: None, pair: None, min_version: TlsVersion::V12 };
    let system = Connector::new(system).unwrap();
    for (connector, name, right) in [
        (&trusting, "localhost", true),
        (&trusting, "LOCALHOST", true),
        (&trusting, "127.0.0.1", true),
        (&trusting, "127.0.0.2", false),
        (&trusting, "other.example", false),
        (&stranger, "localhost", false),
        (&system, "localhost", false),
    ] {
        let (client, server) = meet(&acceptor, connector, name, usize::MAX);
        assert_eq!(client.opened && client.failed.is_none(), right, "{name}");
        assert_eq!(matches!(client.failed, Some(TlsFailure::Protocol(_))), !right, "{name}");
        assert_eq!(server.failed.is_some(), !right, "{name}: the server is told by an alert");
    }
    for name in ["", "a b", "-", "a..b"] {
        assert!(trusting.connect(name).is_none(), "{name}");
    }
}

#[test]
fn tls_client_shows_its_certificate_on_request() {
    let (authority, folder) = (Authority::new(), folder("client-mutual"));
    let own = |authority: &Authority| pair(&authority.leaf(&["gateway"]), &folder, "gateway");
    let with = connector(&authority, &folder, Some(own(&authority)));
    let without = connector(&authority, &folder, None);
    let wrong = connector(&authority, &folder, Some(own(&Authority::new())));
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let required = acceptor(&authority, &folder, Mutual::Required, version);
        let none = acceptor(&authority, &folder, Mutual::None, version);
        for (acceptor, connector, known, right) in [
            (&required, &with, true, true),
            (&required, &without, false, false),
            (&required, &wrong, false, false),
            (&none, &with, false, true),
        ] {
            let (client, server) = meet(acceptor, connector, "localhost", usize::MAX);
            assert_eq!(server.opened && client.opened && client.failed.is_none(), right);
            assert_eq!(server.filter.identity().is_some(), known);
        }
    }
}

#[test]
fn tls_client_refuses_old_versions_and_plain_text() {
    let (authority, folder) = (Authority::new(), folder("client-versions"));
    let new =
        Offer { roots: Some(roots(&authority, &folder)), pair: None, min_version: TlsVersion::V13 };
    let mut client = End::new(Connector::new(new).unwrap().connect("localhost").unwrap());
    let old = rustls::ServerConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    );
    let old = old.with_protocol_versions(&[&rustls::version::TLS12]).unwrap().with_no_client_auth();
    let leaf = authority.leaf(&["localhost"]);
    let old = old.with_single_cert(vec![leaf.cert.der().clone()], leaf.key_der()).unwrap();
    let mut old = rustls::ServerConnection::new(old.into()).unwrap();
    old.read_tls(&mut &client.filter.take_records()[..]).unwrap();
    assert!(old.process_new_packets().is_err());
    let mut alert = Vec::new();
    old.write_tls(&mut alert).unwrap();
    client.receive(&alert, 1);
    assert!(matches!(client.failed, Some(TlsFailure::Protocol(_))));

    let connector = connector(&authority, &folder, None);
    for replies in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0\0\0\0\0\0"] {
        let mut client = End::new(connector.connect("localhost").unwrap());
        client.receive(replies, usize::MAX);
        assert!(matches!(client.failed, Some(TlsFailure::Protocol(_))));
        assert!(client.filter.is_handshaking() || !client.opened);
    }
    let mut client = End::new(connector.connect("localhost").unwrap());
    client.receive(&[&[22, 3, 3, 0xff, 0xff][..], &[0; 100]].concat(), usize::MAX);
    assert!(client.failed.is_some());
}

#[test]
fn tls_client_files_are_read_with_the_configuration() {
    let (authority, folder) = (Authority::new(), folder("client-files"));
    roots(&authority, &folder);
    pair(&authority.leaf(&["a"]), &folder, "a");
    pair(&authority.leaf(&["b"]), &folder, "b");
    let load = |tls: &str| {
        let route = "[[routes]]\nendpoint = 'proxy'\nproxy.upstreams = ['ws://a', 'wss://b']\n";
        let path = folder.join("polycast.toml");
        fs::write(&path, format!("{route}{tls}\n{APP}")).unwrap();
        let prefix = format!("{}/", folder.display());
        Config::load(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    };
    let config = load(
        "proxy.tls.ca_file = 'ca.pem'\nproxy.tls.certificate = { cert = 'a.pem', key = 'a.key' }",
    );
    let config = config.unwrap();
    let proxy = config.routes[0].proxy.as_ref().unwrap();
    let runtime = runtime::build(&config).unwrap();
    let upstreams = runtime.route(0).upstreams.as_ref().unwrap();
    let speaks = |at: usize| upstreams.connect(&proxy.upstreams[at]).is_some();
    assert_eq!([speaks(0), speaks(1)], [false, true]);
    let files = proxy.tls.files(&folder);
    assert_eq!(files, ["ca.pem", "a.pem", "a.key"].map(|name| folder.join(name)));
    assert!(load("").unwrap().routes[0].proxy.is_some());
    for (tls, refusal) in [
        ("proxy.tls.ca_file = 'none.pem'", "4:11: routes[0].proxy.tls.ca_file: none.pem cannot"),
        ("proxy.tls.ca_file = 'a.key'", "4:11: routes[0].proxy.tls.ca_file: a.key contains no"),
        (
            "proxy.tls.certificate = { cert = 'a.pem', key = 'none.key' }",
            "4:43: routes[0].proxy.tls.certificate.key: none.key cannot be read",
        ),
        (
            "proxy.tls.certificate = { cert = 'a.pem', key = 'b.key' }",
            "4:11: routes[0].proxy.tls.certificate: b.key contains a private key that does not",
        ),
    ] {
        let error = load(tls).expect_err(tls);
        assert!(error.starts_with(&format!("polycast.toml:{refusal}")), "{error}");
    }
    // Without a folder, no file is read.
    let text = "[[routes]]\nendpoint = 'proxy'\nproxy.upstreams = 'wss://b'\n\
                proxy.tls.ca_file = 'none.pem'\n";
    assert!(Config::parse(&format!("{text}{APP}"), FileFormat::Toml, "f").is_ok());
}

/// Writes a PKCS #12 store with a key and trusted authorities.
pub(crate) fn store(folder: &Path, own: &Leaf, trusted: &[(&str, &Authority)]) {
    let leaf = Certificate::from_der(own.cert.der()).unwrap();
    let key = PrivateKey::from_der(&own.key.serialize_der()).unwrap();
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(LocalKeyId::from(&b"1"[..]), key, [leaf]);
    store.add_entry("localhost", KeyStoreEntry::PrivateKeyChain(chain));
    fs::write(folder.join("localhost.p12"), store.writer("generated").write().unwrap()).unwrap();
    for (name, authority) in trusted {
        let certificate = Certificate::from_der(&authority.der()).unwrap();
        store.add_entry(name, KeyStoreEntry::Certificate(certificate));
    }
    fs::write(folder.join("trust.p12"), store.writer("generated").write().unwrap()).unwrap();
}

#[test]
fn tls_client_store_entries_are_chosen_by_alias() {
    let folder = folder("client-stores");
    let (one, other) = (Authority::new(), Authority::new());
    store(&folder, &one.leaf(&["localhost"]), &[("one", &one), ("other", &other)]);
    let (keys, trust) = (folder.join("localhost.p12"), folder.join("trust.p12"));
    for (alias, found) in [("", true), ("localhost", true), ("LOCALHOST", true), ("one", false)] {
        assert_eq!(tls::pkcs12_pair(&keys, "generated", alias).is_ok(), found, "{alias}");
    }
    let received = tls::pkcs12_pair(&keys, "generated", "one").unwrap_err().to_string();
    assert!(
        received.ends_with(
            "localhost.p12 contains no entry `one` with the required certificate or key"
        ),
        "{received}"
    );
    let pairs = vec![tls::pkcs12_pair(&keys, "generated", "").unwrap()];
    let setup = Setup {
        pairs,
        mutual: Mutual::None,
        client_ca: None,
        min_version: TlsVersion::V12,
        alpn: &[],
    };
    let acceptor = Acceptor::new(setup).unwrap();
    for (aliases, right) in
        [(&["one"][..], true), (&["ONE", "other"], true), (&["other"], false), (&[], true)]
    {
        let aliases: Vec<String> = aliases.iter().map(|it| (*it).to_owned()).collect();
        let roots = tls::pkcs12_roots(&trust, "generated", &aliases).unwrap();
        for roots in
            [tls::pkcs12_roots(&trust, "generated", &aliases).unwrap(), roots.with_system()]
        {
            let offer = Offer { roots: Some(roots), pair: None, min_version: TlsVersion::V12 };
            let connector = Connector::new(offer).unwrap();
            let (client, _) = meet(&acceptor, &connector, "localhost", usize::MAX);
            assert_eq!(client.failed.is_none(), right, "{aliases:?}");
        }
    }
    let refused = |aliases: &[&str], password: &str| {
        let aliases: Vec<String> = aliases.iter().map(|it| (*it).to_owned()).collect();
        tls::pkcs12_roots(&trust, password, &aliases).expect_err("an error").to_string()
    };
    assert!(
        refused(&["none"], "generated")
            .ends_with("contains no entry `none` with the required certificate or key")
    );
    assert!(refused(&[], "wrong").contains("the password is wrong"));
    // A store as OpenSSL writes it, whose entries are not marked as trusted.
    let openssl = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ec.p12");
    assert!(tls::pkcs12_roots(&openssl, "changeit", &[]).is_ok());
}

#[test]
fn zilla_proxy_file_finds_its_stores() {
    let folder = folder("client-zilla");
    let authority = Authority::new();
    store(&folder, &authority.leaf(&["localhost"]), &[("localhost", &authority)]);
    let text = include_str!("../../examples/zilla/proxy.yaml");
    let load = |text: &str| {
        let text = text.replace("${{env.STORE_PASSWORD}}", "generated");
        let path = folder.join("zilla.yaml");
        fs::write(&path, text.replace("${{env.UPSTREAM}}", "127.0.0.1")).unwrap();
        Config::load(&path)
    };
    let config = load(text).unwrap_or_else(|error| panic!("{error}"));
    let runtime = runtime::build(&config).unwrap();
    let proxied = config.routes.iter().position(|it| it.endpoint == EndpointKind::Proxy).unwrap();
    let upstreams = runtime.route(proxied).upstreams.as_ref().unwrap();
    let upstream = &upstreams.proxy.upstreams[0];
    let mut client = End::new(upstreams.connect(upstream).unwrap());
    let mut server = End::new(runtime.acceptor(0).unwrap().accept().unwrap());
    exchange(&mut client, &mut server, usize::MAX);
    assert!(client.opened && server.opened, "both sides of the file fit each other");
    let error = load(&text.replace("        - localhost\n      sni", "        - other\n      sni"));
    let error = error.expect_err("no such entry").to_string();
    assert!(
        error.contains(
            "localhost.p12 contains no entry `other` with the required certificate or key"
        ),
        "{error}"
    );
}
