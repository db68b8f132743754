//! Client certificates that their authority has taken back by a revocation list.

use crate::certs::{Authority, Leaf, folder};
use crate::tls_listed::{Identity, exchange};
use polycast::config::{Config, FileFormat};
use polycast::tls::{self, Acceptor, FileKind, Mutual, Roots, Setup, TlsVersion};
use rustls::Error::{InvalidCertRevocationList, InvalidCertificate};
use rustls::{CertificateError, ClientConnection};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A certificate of a client with this serial number.
fn numbered(authority: &Authority, serial: u64) -> Leaf {
    authority.leaf_with(&["client"], |params| params.serial_number = Some(serial.into()))
}

/// The clients' authority with revocation lists.
fn roots(folder: &Path, authority: &Authority, lists: &[String]) -> Roots {
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let mut roots = tls::roots(&folder.join("ca.pem")).unwrap();
    for (index, list) in lists.iter().enumerate() {
        let file = folder.join(format!("{index}.crl"));
        fs::write(&file, list).unwrap();
        roots = roots.revoked_by(&file).unwrap();
    }
    roots
}

/// The result of the handshake of a client with this certificate.
fn handshake(
    folder: &Path,
    authority: &Authority,
    roots: Roots,
    leaf: &Leaf,
) -> Result<(), rustls::Error> {
    authority.leaf(&["localhost"]).write(folder, "server");
    let chain = tls::pem_chain(&folder.join("server.pem")).unwrap();
    let setup = Setup {
        pairs: vec![chain.with_key(&folder.join("server.key")).unwrap()],
        mutual: Mutual::Required,
        client_ca: Some(roots),
        min_version: TlsVersion::V12,
        alpn: &[],
    };
    let mut ours = Acceptor::new(setup).unwrap().accept().unwrap();
    let mut config = authority.client(None);
    config.client_auth_cert_resolver = Identity::of(leaf).resolver();
    let peer = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    match exchange(&mut ours, &mut peer.into()) {
        Ok(()) => Ok(()),
        Err(Some(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tls_revoked_client_certificate_is_refused_and_others_are_not() {
    let (folder, authority) = (folder("revoked"), Authority::new());
    let (kept, revoked) = (numbered(&authority, 7), numbered(&authority, 8));
    let none = |leaf| handshake(&folder, &authority, roots(&folder, &authority, &[]), leaf);
    assert_eq!((none(&kept), none(&revoked)), (Ok(()), Ok(())));
    let lists = [authority.revocation_list(&[8, 9], 2100)];
    let listed = |leaf| handshake(&folder, &authority, roots(&folder, &authority, &lists), leaf);
    let refused = Err(InvalidCertificate(CertificateError::Revoked));
    assert_eq!((listed(&kept), listed(&revoked)), (Ok(()), refused));
}

#[test]
fn tls_revoked_unknown_or_overdue_status_refuses_the_client() {
    let (folder, authority) = (folder("revoked-unknown"), Authority::new());
    let kept = numbered(&authority, 7);
    let with = |list| handshake(&folder, &authority, roots(&folder, &authority, &[list]), &kept);
    let other = Authority::new().revocation_list(&[8], 2100);
    // The other authority has the same name.
    assert!(matches!(with(other), Err(InvalidCertRevocationList(_))));
    let overdue = with(authority.revocation_list(&[8], 2021));
    assert!(matches!(
        overdue,
        Err(InvalidCertificate(CertificateError::ExpiredRevocationListContext { .. }))
    ));
}

#[test]
fn tls_revocation_lists_change_what_the_roots_equal() {
    let (folder, authority) = (folder("revoked-equal"), Authority::new());
    let one = roots(&folder, &authority, &[authority.revocation_list(&[8], 2100)]);
    let two = roots(&folder, &authority, &[authority.revocation_list(&[8, 9], 2100)]);
    assert!(one == one.clone() && one != two);
    assert!(two != roots(&folder, &authority, &[]));
}

#[test]
fn tls_revocation_files_without_lists_are_errors() {
    let (folder, authority) = (folder("revoked-files"), Authority::new());
    let read = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        roots(&folder, &authority, &[]).revoked_by(&file).unwrap_err().what
    };
    assert!(matches!(read("empty.crl", ""), FileKind::NoRevocationList));
    assert!(matches!(read("ca.crl", &authority.pem()), FileKind::NoRevocationList));
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    assert!(matches!(read("broken.crl", broken), FileKind::BadRevocationList(_)));
    let long = "\n".repeat(1024 * 1024 + 1);
    assert!(matches!(read("long.crl", &long), FileKind::TooLong));
    let missing = roots(&folder, &authority, &[]).revoked_by(&folder.join("missing.crl"));
    assert!(matches!(missing.unwrap_err().what, FileKind::Read(_)));
}

#[test]
fn tls_revocation_lists_need_authorities() {
    let text = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n[[listeners]]\naddress = \
                '127.0.0.1:0'\n[listeners.tls]\nclient_crls = ['a.crl']\n";
    let error = Config::parse_with(text, FileFormat::Toml, "test", &|_| None).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("client_crls") && error.contains("`client_ca` is not set"), "{error}");
}
