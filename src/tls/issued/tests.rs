use super::*;
use crate::tls::{Acceptor, Filter, Mutual, Setup, TlsFailure, TlsVersion};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::path::Path;

/// A pair for `domain` whose certificate ends in the January of `year`.
fn pair(domain: &str, year: i32) -> Pair {
    let mut params = CertificateParams::new([domain.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let pem = format!("{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem());
    Pair::from_pem(Path::new("test"), pem.as_bytes()).unwrap()
}

fn issued(domain: &str, year: i32) -> IssuedCertificate {
    IssuedCertificate::new(domain, pair(domain, year)).unwrap()
}

/// Accepts every certificate, because these tests look at which one is shown.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// What a client sees: the certificate in DER, and whether the server has ended the connection.
struct ClientView {
    certificate: Option<Vec<u8>>,
    ended: bool,
    failed: Option<TlsFailure>,
}

/// A handshake of a client with this server name and these ALPN protocols.
fn shake(acceptor: &Acceptor, name: &str, alpn: &[&[u8]]) -> ClientView {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
    let mut server: Filter = acceptor.accept().unwrap();
    let (mut seen, mut plain) =
        (ClientView { certificate: None, ended: false, failed: None }, Vec::new());
    let mut to_client = Vec::new();
    for _ in 0..8 {
        let mut to_server = Vec::new();
        let mut taken = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                client.process_tls_records(&mut to_client[taken..]);
            let mut is_idle = false;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let from = to_server.len();
                    to_server.resize(from + 16 * 1024, 0);
                    let written = data.encode(&mut to_server[from..]).unwrap();
                    to_server.truncate(from + written);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => seen.ended = true,
                _ => is_idle = true,
            }
            taken += discard;
            if is_idle {
                break;
            }
        }
        if let Some(chain) = client.peer_certificates() {
            seen.certificate = chain.first().map(|it| it.to_vec());
        }
        let progress = server.receive(&mut to_server, &mut plain);
        if progress.failed.is_some() {
            seen.failed = progress.failed;
        }
        to_client = server.take_records();
    }
    seen
}

/// An acceptor for these domains, with the certificates of `files`.
fn acceptor(
    certificates: &Arc<IssuedCertificates>,
    domains: &[&str],
    answers_challenges: bool,
    files: Vec<Pair>,
) -> Acceptor {
    let alpn = ["http/1.1".to_owned()];
    let setup = Setup {
        pairs: files,
        mutual: Mutual::None,
        client_ca: None,
        min_version: TlsVersion::V12,
        alpn: &alpn,
    };
    let domains: Vec<String> = domains.iter().map(|it| (*it).to_owned()).collect();
    let names = IssuedNames { certificates: certificates.clone(), domains, answers_challenges };
    Acceptor::with_issued(setup, Some(names)).unwrap()
}

#[test]
fn issued_certificate_is_used_by_the_next_handshake() {
    let all = Arc::new(IssuedCertificates::default());
    all.enter(["a.test", "b.test"], Vec::new());
    let acceptor = acceptor(&all, &["a.test", "b.test"], true, Vec::new());
    assert!(shake(&acceptor, "a.test", &[]).certificate.is_none(), "not issued yet");
    assert_eq!((all.refused(), all.count()), (1, (2, 2)));
    let certificate = issued("a.test", 2090);
    let der = certificate.certificate().to_vec();
    all.put(certificate);
    assert_eq!(shake(&acceptor, "A.Test", &[]).certificate.as_ref(), Some(&der));
    assert!(shake(&acceptor, "b.test", &[]).certificate.is_none(), "another domain");
    assert_eq!(shake(&acceptor, "c.test", &[]).certificate, Some(der), "a name of no domain");
    assert_eq!((all.refused(), all.count()), (2, (2, 1)));
    let next = issued("a.test", 2091);
    let der = next.certificate().to_vec();
    all.put(next);
    assert_eq!(shake(&acceptor, "a.test", &[]).certificate, Some(der));
}

#[test]
fn issued_certificate_that_expires_sooner_replaces_none() {
    let all = IssuedCertificates::default();
    all.enter(["a.test"], vec![issued("a.test", 2090)]);
    let until = |all: &IssuedCertificates| all.expiries()[0].1;
    let later = until(&all);
    all.put(issued("a.test", 2080));
    assert_eq!(until(&all), later);
    // A reload reads the file of the store, which may be older than the certificate in use.
    all.enter(["a.test"], vec![issued("a.test", 2080)]);
    assert_eq!(until(&all), later);
    all.put(issued("a.test", 2091));
    assert!(until(&all) > later);
    all.enter(["b.test"], Vec::new());
    all.put(issued("a.test", 2092));
    assert_eq!(all.expiries(), [("b.test".to_owned(), None)], "a domain that was removed");
}

#[test]
fn issued_certificates_come_before_those_of_files() {
    let all = Arc::new(IssuedCertificates::default());
    all.enter(["x.a.test"], Vec::new());
    let (wide, other) = (pair("*.a.test", 2090), pair("other.example", 2090));
    let [wide_der, other_der] = [&wide, &other].map(|it| it.chain[0].to_vec());
    let both = acceptor(&all, &["x.a.test"], true, vec![other.clone(), wide]);
    assert_eq!(
        shake(&both, "x.a.test", &[]).certificate,
        Some(wide_der),
        "it is for the name, too"
    );
    assert_eq!(shake(&both, "x.example", &[]).certificate, Some(other_der.clone()), "the first");
    let one = acceptor(&all, &["x.a.test"], true, vec![other]);
    assert!(shake(&one, "x.a.test", &[]).certificate.is_none(), "no certificate of another name");
    let certificate = issued("x.a.test", 2090);
    let der = certificate.certificate().to_vec();
    all.put(certificate);
    assert_eq!(shake(&both, "x.a.test", &[]).certificate, Some(der));
    assert_eq!(shake(&one, "x.example", &[]).certificate, Some(other_der));
}

#[test]
fn challenge_is_answered_only_while_it_is_pending_and_ends_the_connection() {
    let all = Arc::new(IssuedCertificates::default());
    all.enter(["a.test"], vec![issued("a.test", 2090)]);
    let own = all.certificate("a.test").unwrap().certificate().to_vec();
    let listener = acceptor(&all, &["a.test"], true, Vec::new());
    let challenge: &[&[u8]] = &[b"acme-tls/1"];
    assert!(shake(&listener, "a.test", challenge).certificate.is_none(), "none is pending");
    let pair = pair("a.test", 2090);
    let der = pair.chain[0].to_vec();
    all.begin_challenge("a.test", pair).unwrap();
    let seen = shake(&listener, "A.test", challenge);
    assert_eq!((seen.certificate.as_ref(), seen.ended), (Some(&der), true), "{:?}", seen.failed);
    assert!(shake(&listener, "b.test", challenge).certificate.is_none(), "another domain");
    // A client that offers more is no certificate authority (RFC 8737 section 3).
    let both: &[&[u8]] = &[b"acme-tls/1", b"http/1.1"];
    let seen = shake(&listener, "a.test", both);
    assert_eq!((seen.certificate, seen.ended), (Some(own.clone()), false));
    assert_eq!(shake(&listener, "a.test", &[b"http/1.1"]).certificate, Some(own));
    assert_eq!((all.answered(), all.refused()), (1, 0), "a challenge is no refused handshake");
    // A listener with the other challenge does not have the protocol.
    let http = acceptor(&all, &["a.test"], false, Vec::new());
    assert!(shake(&http, "a.test", challenge).failed.is_some());
    all.end_challenge("a.test");
    assert!(shake(&listener, "a.test", challenge).certificate.is_none());
}

#[test]
fn challenge_response_is_given_while_its_token_is_pending() {
    let all = IssuedCertificates::default();
    assert_eq!(all.response("token"), None);
    all.begin_response("token", "token.thumbprint");
    assert_eq!(all.response("token").as_deref(), Some("token.thumbprint"));
    assert_eq!((all.response("other"), all.response("")), (None, None));
    all.end_response("token");
    assert_eq!((all.response("token"), all.answered()), (None, 1));
}

#[test]
fn issued_certificate_must_be_for_its_domain_and_have_its_key() {
    let refusal = |domain: &str, pair: Pair| {
        IssuedCertificate::new(domain, pair).expect_err(domain).to_string()
    };
    let text = refusal("a.test", pair("b.test", 2090));
    assert_eq!(text, "test contains a certificate that is not for a.test");
    let (mut one, two) = (pair("a.test", 2090), pair("a.test", 2090));
    one.key = two.key;
    assert!(refusal("a.test", one).contains("does not belong to the first certificate"));
    let good = issued("a.test", 2030);
    assert_eq!((good.from_s, good.until_s), (1_577_836_800, 1_893_456_000));
}
