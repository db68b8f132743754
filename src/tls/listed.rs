//! Verification by listed certificates: a peer is accepted without a certificate authority if it
//! shows one of them, byte for byte, and proves that it has the private key.
//!
//! `webpki` uses the listed certificates as authorities only. It refuses one as an end-entity
//! certificate if it is marked as an authority (`CA:TRUE`, as `keytool` and `openssl req -x509`
//! mark self-signed certificates), if it is X.509 version 1, or if it has a common name and no
//! subjectAltName. So for a listed certificate, and for no other, this module does the remaining
//! checks itself: validity, purpose, name, and the signature of the handshake. Certificates that
//! are not listed are verified by `webpki` unchanged; in those that a listed authority has signed,
//! the common name is not used.

use super::files::{self, FileKind, Roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::crypto::{
    verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use std::net::IpAddr;
use std::sync::Arc;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

/// The purpose for which a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Server,
    Client,
}

/// The listed certificates: those of a file of trusted certificates.
#[derive(Debug)]
struct Listed {
    certificates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Verifies servers: by a listed certificate, or by `webpki` with the listed certificates as
/// authorities.
#[derive(Debug)]
struct ServerVerifier {
    listed: Listed,
    chains: Arc<WebPkiServerVerifier>,
}

/// Verifies clients: by a listed certificate, or by `webpki` with the listed certificates as
/// authorities.
#[derive(Debug)]
struct ClientVerifier {
    listed: Listed,
    chains: Arc<dyn ClientCertVerifier>,
}

impl Roots {
    /// Makes the verifier of servers' certificates.
    ///
    /// # Errors
    /// No verifier can be made, for example without any root.
    pub fn verifier(self) -> Result<Arc<dyn ServerCertVerifier>, files::Error> {
        let file = self.file.clone();
        let provider = Arc::new(ring::default_provider());
        let verifier = server_verifier(self, &provider);
        verifier.map_err(|error| files::Error::new(&file, FileKind::Verifier(error)))
    }
}

/// Makes the verifier of servers by `roots`.
///
/// # Errors
/// No verifier can be made of `roots`.
fn server_verifier(
    roots: Roots,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierBuilderError> {
    let store = Arc::new(roots.store);
    let chains = WebPkiServerVerifier::builder_with_provider(store, provider.clone()).build()?;
    Ok(Arc::new(ServerVerifier { listed: Listed::new(roots.listed, provider), chains }))
}

/// Makes the verifier of clients by `roots`. With `optional`, a client without a certificate is
/// accepted, too.
///
/// # Errors
/// No verifier can be made of `roots`.
pub(super) fn client_verifier(
    roots: Roots,
    optional: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let store = Arc::new(roots.store);
    let builder = WebPkiClientVerifier::builder_with_provider(store, provider.clone());
    let builder = builder.with_crls(roots.revoked).enforce_revocation_expiration();
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    let chains = builder.build()?;
    Ok(Arc::new(ClientVerifier { listed: Listed::new(roots.listed, provider), chains }))
}

/// The public key (SubjectPublicKeyInfo) of a certificate of X.509 version 1, which `webpki` cannot
/// read. `None` for any other certificate.
pub(super) fn v1_public_key(der: &[u8]) -> Option<&[u8]> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let is_v1 = rest.is_empty() && certificate.version() == X509Version::V1;
    is_v1.then_some(certificate.tbs_certificate.subject_pki.raw)
}

impl Listed {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Listed {
        Listed { certificates, algorithms: provider.signature_verification_algorithms }
    }

    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|it| **it == **certificate)
    }

    /// Verifies a handshake signature of TLS 1.2 with the key of `certificate`.
    fn verify_tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = v1_public_key(certificate).filter(|_| self.has(certificate));
        let Some(key) = key else {
            return verify_tls12_signature(message, certificate, dss, &self.algorithms);
        };
        let (algorithm, key) = split_key(key).ok_or(CertificateError::BadEncoding)?;
        let mut mapping = self.algorithms.mapping.iter();
        let Some((_, fitting)) = mapping.find(|(scheme, _)| *scheme == dss.scheme) else {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        };
        // In TLS 1.2 a signature scheme names a hash but no curve, so several algorithms may match.
        let is_valid = fitting.iter().any(|it| {
            it.public_key_alg_id().as_ref() == algorithm
                && it.verify_signature(key, message, dss.signature()).is_ok()
        });
        match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    /// Verifies a handshake signature of TLS 1.3 with the key of `certificate`.
    fn verify_tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match v1_public_key(certificate).filter(|_| self.has(certificate)) {
            None => verify_tls13_signature(message, certificate, dss, &self.algorithms),
            Some(key) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }
        }
    }
}

/// The methods about signatures, which the traits of both verifiers have: a listed certificate may
/// have a version that the standard verifier does not read.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.listed.verify_tls12(message, certificate, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.listed.verify_tls13(message, certificate, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.chains.supported_verify_schemes()
        }
    };
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.has(end_entity) {
            return self.chains.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        }
        let certificate = usable(end_entity, Purpose::Server, now)?;
        verify_name(&certificate, end_entity, name)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.listed.has(end_entity) {
            return self.chains.verify_client_cert(end_entity, intermediates, now);
        }
        usable(end_entity, Purpose::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    verify_signatures!();
}

/// Reads a listed certificate and checks that it is valid now, and that it permits `purpose` if it
/// has extended key usages (RFC 5280 section 4.2.1.12).
fn usable<'d>(
    der: &'d CertificateDer<'_>,
    purpose: Purpose,
    now: UnixTime,
) -> Result<X509Certificate<'d>, Error> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < from {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > until {
        return Err(CertificateError::Expired.into());
    }
    let purposes = certificate.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    let fits = purposes.is_none_or(|it| match purpose {
        Purpose::Server => it.value.any || it.value.server_auth,
        Purpose::Client => it.value.any || it.value.client_auth,
    });
    match fits {
        true => Ok(certificate),
        false => Err(CertificateError::InvalidPurpose.into()),
    }
}

/// Checks that a listed certificate is for the server `name`: by its subjectAltName, or, if it has
/// none, by its last common name, which is the most specific one (RFC 6125 section 6.4.4).
fn verify_name(
    certificate: &X509Certificate<'_>,
    der: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> Result<(), Error> {
    let alternative = certificate.subject_alternative_name();
    if alternative.map_err(|_| CertificateError::BadEncoding)?.is_some() {
        return verify_server_name(&ParsedCertificate::try_from(der)?, name);
    }
    let common = certificate.subject().iter_common_name().last();
    let is_for = common.and_then(|it| it.as_str().ok()).is_some_and(|it| is_named(it, name));
    match is_for {
        true => Ok(()),
        false => Err(CertificateError::NotValidForName.into()),
    }
}

/// Whether a common name matches the server's address or DNS name. Case is ignored. A `*` stands
/// for the whole first label, and at least two labels must follow (RFC 6125 section 6.4.3).
fn is_named(common: &str, name: &ServerName<'_>) -> bool {
    let name = match name {
        ServerName::DnsName(name) => name.as_ref(),
        ServerName::IpAddress(address) => {
            return common.parse::<IpAddr>().is_ok_and(|it| it == IpAddr::from(*address));
        }
        _ => return false,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    match common.strip_prefix("*.") {
        None => !common.contains('*') && name.eq_ignore_ascii_case(common),
        Some(parent) => {
            let is_parent = parent.contains('.') && !parent.contains('*');
            let rest = name.split_once('.').map(|(_, rest)| rest);
            is_parent && rest.is_some_and(|rest| rest.eq_ignore_ascii_case(parent))
        }
    }
}

/// Splits a SubjectPublicKeyInfo into the algorithm's identifier and the key.
fn split_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (spki, _) = contents(spki, 0x30)?;
    let (algorithm, rest) = contents(spki, 0x30)?;
    let (bits, _) = contents(rest, 0x03)?;
    // The first byte is the number of unused bits, which must be 0.
    Some((algorithm, bits.strip_prefix(&[0])?))
}

/// Splits `der` into the content of its first value, which must have this tag, and the bytes after
/// the value.
fn contents(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (len, rest) = match usize::from(*first) {
        len @ 0..0x80 => (len, rest),
        long => {
            let (octets, rest) = rest.split_at_checked(long - 0x80)?;
            let len = octets.iter().try_fold(0_usize, |len, octet| {
                len.checked_mul(256).map(|len| len | usize::from(*octet))
            });
            (len?, rest)
        }
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_common_names_by_the_usual_rules() {
        for (common, name, expected) in [
            ("backend", "backend", true),
            ("BackEnd", "bACKeND", true),
            ("backend", "backend.", true),
            ("backend", "backend2", false),
            ("a.example", "b.a.example", false),
            ("*.a.example", "b.a.example", true),
            ("*.a.example", "B.A.Example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "c.b.a.example", false),
            ("*.example", "a.example", false),
            ("*", "backend", false),
            ("b*.a.example", "b.a.example", false),
            ("*.*.example", "b.a.example", false),
            ("", "backend", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "::1", true),
            ("0:0:0:0:0:0:0:1", "::1", true),
            ("backend", "127.0.0.1", false),
            ("*", "127.0.0.1", false),
        ] {
            let server = ServerName::try_from(name).expect(name);
            assert_eq!(is_named(common, &server), expected, "{common} {name}");
        }
    }

    #[test]
    fn listed_keys_are_taken_apart_or_refused() {
        let short = [0x30, 8, 0x30, 2, 5, 0, 3, 2, 0, 7];
        assert_eq!(split_key(&short), Some((&[5, 0][..], &[7][..])));
        let long = [&[0x30, 0x81, 0x86, 0x30, 0, 3, 0x81, 0x81, 0][..], &[1; 128]].concat();
        assert_eq!(split_key(&long), Some((&[][..], &[1; 128][..])));
        for cut in 0..short.len() {
            assert_eq!(split_key(&short[..cut]), None, "{cut}");
        }
        for cut in 0..long.len() {
            assert_eq!(split_key(&long[..cut]), None, "{cut}");
        }
        // Unused bits, and a length that does not fit into `usize`.
        assert_eq!(split_key(&[0x30, 6, 0x30, 0, 3, 2, 1, 7]), None);
        assert_eq!(split_key(&[&[0x30, 0xff][..], &[0xff; 127]].concat()), None);
    }
}
