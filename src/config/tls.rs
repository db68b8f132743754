//! TLS settings of a listener: certificates, client certificates and versions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::acme::{self, Acme};
use crate::settings::error::{Error, Problem};
use crate::settings::secret::Secret;
use crate::settings::section::{section, words};
use crate::tls::{self, Acceptor, IssuedCertificates, IssuedNames, Mutual, Setup, TlsVersion};

words!(Mutual, TlsVersion);

section! {
    /// TLS of the listener above: with certificates, of files or by ACME, it accepts only TLS 1.2
    /// and 1.3 (https and wss). Files are read again when they change. A handshake takes about
    /// 0.15 ms of a core with an ECDSA key, and 0.9 ms with a 2048-bit RSA key. A reactor does at
    /// most eight handshakes per turn of its event loop.
    pub struct Tls {
        /// Certificates. The server name that the client requests (SNI) selects one; the first is
        /// used if none matches. An entry has either cert (the certificate chain) and key, both in
        /// PEM; or pkcs12 and password, and alias if it is not the first entry of that file.
        pub certificates: Vec<Certificate> = Vec::new();
        /// Whether clients are asked for certificates: "none"; "requested", where a client may send
        /// none, but one that it sends must be valid; "required".
        pub mutual: Mutual = Mutual::default();
        /// PEM file of the certificate authorities that client certificates are verified with;
        /// empty if mutual is "none". A client whose own certificate is in this file is also
        /// accepted, whatever its name is.
        pub client_ca: String = String::new();
        /// The password of client_ca. If it is set, the file is PKCS#12.
        pub client_ca_password: Secret = Secret::default();
        /// Names of the trusted entries of a PKCS#12 client_ca. Empty is all that the file marks as
        /// trusted.
        pub client_ca_aliases: Vec<String> = Vec::new();
        /// PEM files of certificate revocation lists (CRL) for clients. With at least one, each
        /// certificate of a client's chain must be covered by a list of its authority that is in
        /// date, and not be in it. A certificate that is itself in client_ca is not looked up. Open
        /// connections stay when a list changes.
        pub client_crls: Vec<String> = Vec::new();
        /// Minimum TLS version: "1.2" or "1.3".
        pub min_version: TlsVersion = TlsVersion::default();
        /// Protocols that are offered by ALPN: "http/1.1" is the only one. Empty disables ALPN.
        pub alpn: Vec<String> = vec!["http/1.1".to_owned()];
        /// Certificates from a certificate authority by ACME.
        pub acme: Option<Box<Acme>> = None;
    }
    and {
        /// The content of the files; `None` until they have been read.
        content: Option<Arc<TlsFiles>>;
    }
}

section! {
    /// A certificate with its private key: either `cert` and `key`, or `pkcs12` and `password`.
    pub struct Certificate {
        /// File of the certificate chain, in PEM.
        pub cert: String = Default::default();
        /// File of the private key, in PEM: PKCS#8, PKCS#1 or SEC1.
        pub key: String = Default::default();
        /// PKCS#12 file with the certificate chain and the private key.
        pub pkcs12: String = Default::default();
        /// The password of the PKCS#12 file.
        pub password: Secret = Default::default();
        /// The name of the entry in the PKCS#12 file; empty is the first.
        pub alias: String = Default::default();
    }
}

/// The content of the files of a listener's TLS settings.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TlsFiles {
    /// The certificates in the order of the configuration.
    pairs: Vec<tls::Pair>,
    /// The authorities of client certificates.
    client_ca: Option<tls::Roots>,
}

impl Tls {
    /// Whether the listener uses TLS.
    pub fn is_on(&self) -> bool {
        !self.certificates.is_empty() || self.acme.is_some()
    }

    /// Makes a TLS acceptor from the content of the files; `None` if the listener does not use TLS
    /// or its files have not been read.
    ///
    /// # Errors
    /// A key does not belong to its certificate, or `rustls` refuses a setting. The key in the
    /// error is relative to these settings.
    pub fn acceptor(&self) -> Result<Option<Acceptor>, Error> {
        self.acceptor_with(&Arc::default())
    }

    /// As [`Tls::acceptor`], with the certificates that were issued by ACME.
    ///
    /// # Errors
    /// As [`Tls::acceptor`].
    pub fn acceptor_with(
        &self,
        issued: &Arc<IssuedCertificates>,
    ) -> Result<Option<Acceptor>, Error> {
        let Some(content) = &self.content else { return Ok(None) };
        let TlsFiles { pairs, client_ca } = (**content).clone();
        let names = self.acme.as_ref().map(|acme| IssuedNames {
            certificates: issued.clone(),
            domains: acme.domains.clone(),
            answers_challenges: acme.challenge == acme::AcmeChallenge::TlsAlpn,
        });
        let setup = Setup {
            pairs,
            mutual: self.mutual,
            client_ca,
            min_version: self.min_version,
            alpn: &self.alpn,
        };
        let acceptor = Acceptor::with_issued(setup, names);
        acceptor.map(Some).map_err(in_file("certificates"))
    }

    /// Every file that these settings name, relative to `folder` unless its path is absolute.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let of_pair = |it: &Certificate| [it.cert.clone(), it.key.clone(), it.pkcs12.clone()];
        let names = self.certificates.iter().flat_map(of_pair).chain([self.client_ca.clone()]);
        let names = names.chain(self.client_crls.iter().cloned());
        let names = names.chain(self.acme.iter().map(|acme| acme.ca_file.clone()));
        names.filter(|name| !name.is_empty()).map(|name| folder.join(name)).collect()
    }

    /// Reads the files, unless they have been read before, and checks that an acceptor can be made
    /// from them.
    pub(super) fn prepare(&mut self, folder: &Path) -> Result<(), Error> {
        if !self.is_on() || self.content.is_some() {
            return Ok(());
        }
        if let Some(acme) = &mut self.acme {
            acme.prepare(folder).map_err(|error| error.under("acme"))?;
        }
        let mut pairs = Vec::new();
        for (index, certificate) in self.certificates.iter().enumerate() {
            let pair = certificate.read(folder);
            pairs.push(pair.map_err(|it| it.under(&format!("certificates[{index}]")))?);
        }
        let client_ca = match self.mutual {
            Mutual::None => None,
            _ => {
                let (password, aliases) = (&self.client_ca_password, &self.client_ca_aliases);
                let roots = read_roots(&folder.join(&self.client_ca), password, aliases);
                let mut roots = roots.map_err(in_file("client_ca"))?;
                for (index, list) in self.client_crls.iter().enumerate() {
                    let read = roots.revoked_by(&folder.join(list));
                    roots = read.map_err(|error| {
                        Error::keyed(
                            format!("client_crls[{index}]"),
                            Problem::Other(error.to_string()),
                        )
                    })?;
                }
                Some(roots)
            }
        };
        self.content = Some(Arc::new(TlsFiles { pairs, client_ca }));
        self.acceptor().map(drop)
    }
}

impl Certificate {
    /// Checks that the certificate is given either in PEM or in PKCS#12, not in both.
    pub(super) fn check(&self) -> Result<(), Error> {
        let pem = (!self.cert.is_empty(), !self.key.is_empty());
        if (pem.0 || pem.1) != self.pkcs12.is_empty() || pem.0 != pem.1 {
            let problem = Problem::Needed("either `cert` and `key`, or `pkcs12`");
            return Err(Error::keyed("", problem));
        }
        if self.pkcs12.is_empty() && !self.alias.is_empty() {
            let problem = Problem::Needed("no value, because `pkcs12` is not set");
            return Err(Error::keyed("alias", problem));
        }
        Ok(())
    }

    pub(super) fn read(&self, folder: &Path) -> Result<tls::Pair, Error> {
        if self.pkcs12.is_empty() {
            let chain = tls::pem_chain(&folder.join(&self.cert)).map_err(in_file("cert"))?;
            return chain.with_key(&folder.join(&self.key)).map_err(in_file("key"));
        }
        let read =
            tls::pkcs12_pair(&folder.join(&self.pkcs12), self.password.expose(), &self.alias);
        read.map_err(in_file("pkcs12"))
    }
}

/// Reads a file of certificate authorities: PKCS#12 if a password is given, else PEM.
pub(super) fn read_roots(
    file: &Path,
    password: &Secret,
    aliases: &[String],
) -> Result<tls::Roots, tls::Error> {
    match password.expose() {
        "" => tls::roots(file),
        password => tls::pkcs12_roots(file, password, aliases),
    }
}

/// Refuses aliases unless a password marks the file as PKCS#12.
pub(super) fn check_aliases(key: &str, aliases: &[String], password: &Secret) -> Result<(), Error> {
    match aliases.is_empty() || !password.expose().is_empty() {
        true => Ok(()),
        false => {
            let words = "no entries, because only a PKCS#12 file with a password has aliases";
            Err(Error::keyed(key, Problem::Needed(words)))
        }
    }
}

pub(super) fn in_file(key: &'static str) -> impl Fn(tls::Error) -> Error {
    move |error| Error::keyed(key, Problem::Other(error.to_string()))
}

/// Checks what types cannot express; the keys in errors are relative to the listener's `tls`.
pub(super) fn check(tls: &Tls) -> Result<(), Error> {
    for (index, certificate) in tls.certificates.iter().enumerate() {
        certificate.check().map_err(|error| error.under(&format!("certificates[{index}]")))?;
    }
    if let Some(section) = &tls.acme {
        acme::check(section, &tls.alpn, tls.mutual)?;
    }
    let has_ca = !tls.client_ca.is_empty();
    if has_ca != (tls.mutual != Mutual::None) {
        let words = "a file if `mutual` is \"requested\" or \"required\", and no value otherwise";
        return Err(Error::keyed("client_ca", Problem::Needed(words)));
    }
    if !has_ca && !tls.client_ca_password.expose().is_empty() {
        let words = "no value, because `client_ca` is not set";
        return Err(Error::keyed("client_ca_password", Problem::Needed(words)));
    }
    if !has_ca && !tls.client_crls.is_empty() {
        let words = "no value, because `client_ca` is not set";
        return Err(Error::keyed("client_crls", Problem::Needed(words)));
    }
    check_aliases("client_ca_aliases", &tls.client_ca_aliases, &tls.client_ca_password)?;
    if !tls.is_on() && tls.mutual != Mutual::None {
        let words = "at least one entry, because `mutual` is set";
        return Err(Error::keyed("certificates", Problem::Needed(words)));
    }
    for (index, name) in tls.alpn.iter().enumerate() {
        if name != "http/1.1" {
            let problem = Problem::Shape { found: name.clone(), accepted: "\"http/1.1\"" };
            return Err(Error::keyed(format!("alpn[{index}]"), problem));
        }
    }
    Ok(())
}
