//! Reads certificates and keys from files in PEM: PKCS#1, PKCS#8, SEC1. The types also hold what is
//! read from other files.

use crate::parts::AbsentPart;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The maximum length of a file of certificates or keys, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// An error in a file of certificates or keys.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: FileKind,
}

/// What is wrong with a file. No part of a private key is ever in it.
#[derive(Debug, thiserror::Error)]
pub enum FileKind {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The file is longer than 1 MiB.
    #[error("is longer than 1 MiB")]
    TooLong,
    /// The file is not PEM.
    #[error("is not PEM: {0}")]
    Pem(String),
    /// The file has no certificate.
    #[error("contains no certificate (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The file has no private key.
    #[error("contains no private key (PKCS#8, PKCS#1 or SEC1)")]
    NoKey,
    /// The private key is encrypted.
    #[error("contains an encrypted private key; decrypt it, or use PKCS#12 with a password")]
    EncryptedKey,
    /// The private key is of a type that is not supported.
    #[error(
        "contains a private key of a type that is not supported; supported: RSA of 2048 to 8192 \
         bits, ECDSA on P-256 or P-384, Ed25519"
    )]
    KeyKind,
    /// The private key does not belong to the first certificate of this file.
    #[error("contains a private key that does not belong to the first certificate in {}",
            .0.display())]
    OtherKey(PathBuf),
    /// The file is not PKCS#12, or the password is wrong.
    #[error("is not PKCS#12, or the password is wrong: {0}")]
    Pkcs12(String),
    /// The file is PKCS#12, which this build does not read.
    #[error("is PKCS#12, and {0}")]
    Absent(AbsentPart),
    /// The PKCS#12 file has no private key with its certificate.
    #[error("contains no private key with its certificate")]
    NoPair,
    /// The PKCS#12 file has no entry of this name with a certificate, or with a key where one is
    /// needed.
    #[error("contains no entry `{0}` with the required certificate or key")]
    NoEntry(String),
    /// A certificate cannot be used as a trust anchor.
    #[error("contains a certificate that cannot be used: {0}")]
    BadCertificate(rustls::Error),
    /// The file has no certificate revocation list.
    #[error("contains no certificate revocation list (`-----BEGIN X509 CRL-----`)")]
    NoRevocationList,
    /// A certificate revocation list cannot be read.
    #[error("contains a certificate revocation list that cannot be read: {0}")]
    BadRevocationList(String),
    /// No verifier can be made from the certificates.
    #[error("cannot be used to verify the peer: {0}")]
    Verifier(rustls::server::VerifierBuilderError),
    /// The certificate is not for this name, which its file is for.
    #[error("contains a certificate that is not for {0}")]
    OtherName(String),
    /// The dates of the certificate cannot be read.
    #[error("contains a certificate whose dates cannot be read")]
    NoDates,
    /// The file of an ACME account cannot be used.
    #[error("is not the ACME account that is configured: {0}")]
    Account(String),
    /// The file or folder cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// Another error of `rustls`.
    #[error("{0}")]
    Refused(rustls::Error),
}

impl Error {
    pub(super) fn new(file: &Path, what: FileKind) -> Error {
        Error { file: file.to_owned(), what }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.file.display(), self.what)
    }
}

impl std::error::Error for Error {}

/// A certificate with its chain and its private key. Its `Debug` output does not show the key.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) file: PathBuf,
    pub(super) key_file: PathBuf,
}

impl Clone for Pair {
    fn clone(&self) -> Pair {
        let Pair { chain, key, file, key_file } = self;
        let (chain, key) = (chain.clone(), key.clone_key());
        Pair { chain, key, file: file.clone(), key_file: key_file.clone() }
    }
}

/// Trusted certificates by which the peer's certificate is verified: as certificate authorities, or
/// as the peer's own certificate. Two are equal if they were read from equal files; the system's
/// certificates are not compared.
#[derive(Clone)]
pub struct Roots {
    pub(super) store: RootCertStore,
    /// The certificates of the file. A peer may show one of these as its own; those of the system
    /// are used as authorities only.
    pub(super) listed: Vec<CertificateDer<'static>>,
    /// The revocation lists of the authorities; if there is none, revocation is not checked.
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
    pub(super) digest: [u8; 32],
    pub(super) file: PathBuf,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.file.display())
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Roots) -> bool {
        (self.digest, &self.file) == (other.digest, &other.file)
    }
}

impl Eq for Roots {}

impl Roots {
    /// The system's certificate authorities, or Mozilla's if the system has none.
    pub fn of_system() -> Roots {
        let file = PathBuf::from("the system's certificates");
        let store = system_roots();
        Roots { store, listed: Vec::new(), revoked: Vec::new(), digest: [0; 32], file }
    }

    /// Adds the system's certificate authorities.
    pub fn with_system(mut self) -> Roots {
        self.store.extend(system_roots().roots);
        self.digest[0] ^= 1;
        self
    }
}

/// A certificate chain of one file, with the server's own certificate first.
#[derive(Debug)]
pub struct CertificateChain(Vec<CertificateDer<'static>>, PathBuf);

impl CertificateChain {
    /// Adds the private key, which is read from `file`. Whether it belongs to the certificate is
    /// checked later.
    ///
    /// # Errors
    /// The file cannot be read, or has no usable private key.
    pub fn with_key(self, file: &Path) -> Result<Pair, Error> {
        let key = private_key(file, &read(file)?)?;
        Ok(Pair { chain: self.0, key, file: self.1, key_file: file.to_owned() })
    }
}

impl Pair {
    /// Reads a certificate chain and its private key from `text`, which has both in PEM and is the
    /// content of `file`. Whether the key belongs to the certificate is checked later.
    ///
    /// # Errors
    /// The text has no certificate, or no usable private key.
    pub fn from_pem(file: &Path, text: &[u8]) -> Result<Pair, Error> {
        let chain = parse_certificates(file, text)?;
        if chain.is_empty() {
            return Err(Error::new(file, FileKind::NoCertificate));
        }
        let key = private_key(file, text)?;
        Ok(Pair { chain, key, file: file.to_owned(), key_file: file.to_owned() })
    }
}

fn private_key(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let encrypted = memchr::memmem::find(text, b"BEGIN ENCRYPTED PRIVATE KEY").is_some();
        let what = match error {
            pem::Error::NoItemsFound if encrypted => FileKind::EncryptedKey,
            pem::Error::NoItemsFound => FileKind::NoKey,
            // The parser's message is not passed on, because it may contain a part of the key.
            _ => FileKind::Pem("the content is damaged".to_owned()),
        };
        Error::new(file, what)
    })
}

/// Reads a server's certificate chain from PEM.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub fn pem_chain(file: &Path) -> Result<CertificateChain, Error> {
    match certificates(file)? {
        chain if chain.is_empty() => Err(Error::new(file, FileKind::NoCertificate)),
        chain => Ok(CertificateChain(chain, file.to_owned())),
    }
}

/// Reads trusted certificates from PEM.
///
/// # Errors
/// As [`pem_chain`]; or a certificate cannot be used as a trust anchor.
pub fn roots(path: &Path) -> Result<Roots, Error> {
    make_roots(path, certificates(path)?)
}

pub(super) fn make_roots(
    path: &Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<Roots, Error> {
    let mut store = RootCertStore::empty();
    let mut digest = Sha256::new();
    for certificate in &certificates {
        digest.update(certificate);
        let added = store.add(certificate.clone());
        added.map_err(|error| Error::new(path, FileKind::BadCertificate(error)))?;
    }
    if store.is_empty() {
        return Err(Error::new(path, FileKind::NoCertificate));
    }
    let digest = digest.finalize().into();
    let (revoked, file) = (Vec::new(), path.to_owned());
    Ok(Roots { store, listed: certificates, revoked, digest, file })
}

/// The system's certificate authorities, or Mozilla's if the system has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    parse_certificates(path, &read(path)?)
}

fn parse_certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    found.map_err(|error| Error::new(path, FileKind::Pem(error.to_string())))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let got = opened.and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes));
    match got {
        Ok(n) if n as u64 > FILE_BYTES => Err(Error::new(path, FileKind::TooLong)),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::new(path, FileKind::Read(error))),
    }
}
