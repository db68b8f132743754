//! TLS of a listener: certificates, whose clients it takes, versions.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{Error, Problem};
use super::schema::{Config, Secret};
use crate::tls::{self, Acceptor, Mutual, Setup, TlsVersion};

/// TLS of one listener. Without certificates there is none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Tls {
    /// Which certificate a client gets follows from the name that it asks for; the first is for
    /// those that ask for none of them.
    pub certificates: Vec<Certificate>,
    /// Whether clients show certificates.
    pub mutual: Mutual,
    /// File of those who vouch for clients, in PEM.
    pub client_ca: String,
    /// The password of that file, which then is PKCS#12.
    pub client_ca_password: Secret,
    /// Names of the entries of that file that are trusted; empty is all that it trusts.
    pub client_ca_aliases: Vec<String>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
    /// Protocols of ALPN (RFC 7301), in the order of preference.
    pub alpn: Vec<String>,
    /// What was made of the files.
    #[serde(skip)]
    acceptor: Option<Acceptor>,
}

/// A certificate with its key: either `cert` and `key`, or `pkcs12` and `password`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Certificate {
    /// File of the certificate and of those that vouch for it, in PEM.
    pub cert: String,
    /// File of its key, in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: String,
    /// File of both.
    pub pkcs12: String,
    /// The password of that file.
    pub password: Secret,
    /// The name of the entry in that file; empty is the first.
    pub alias: String,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            certificates: Vec::new(),
            mutual: Mutual::default(),
            client_ca: String::new(),
            client_ca_password: Secret::default(),
            client_ca_aliases: Vec::new(),
            min_version: TlsVersion::default(),
            alpn: vec!["http/1.1".to_owned()],
            acceptor: None,
        }
    }
}

impl Tls {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// What takes connections, if the listener speaks TLS and its files were read.
    pub fn acceptor(&self) -> Option<&Acceptor> {
        self.acceptor.as_ref()
    }

    /// Every file that is named, below `folder` unless its path is absolute.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let of_pair = |it: &Certificate| [it.cert.clone(), it.key.clone(), it.pkcs12.clone()];
        let names = self.certificates.iter().flat_map(of_pair).chain([self.client_ca.clone()]);
        names.filter(|name| !name.is_empty()).map(|name| folder.join(name)).collect()
    }

    /// Reads the files, unless that was done before.
    pub(super) fn prepare(&mut self, folder: &Path) -> Result<(), Error> {
        if !self.is_on() || self.acceptor.is_some() {
            return Ok(());
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
                Some(roots.map_err(in_file("client_ca"))?)
            }
        };
        let acceptor = Acceptor::new(Setup {
            pairs,
            mutual: self.mutual,
            client_ca,
            min_version: self.min_version,
            alpn: &self.alpn,
        });
        self.acceptor = Some(acceptor.map_err(in_file("certificates"))?);
        Ok(())
    }
}

impl Certificate {
    /// Checks that it names files of one kind.
    pub(super) fn check(&self) -> Result<(), Error> {
        let pem = (!self.cert.is_empty(), !self.key.is_empty());
        if (pem.0 || pem.1) != self.pkcs12.is_empty() || pem.0 != pem.1 {
            let problem = Problem::Needed("either `cert` and `key`, or `pkcs12`");
            return Err(Error::keyed("", problem));
        }
        if self.pkcs12.is_empty() && !self.alias.is_empty() {
            let problem = Problem::Needed("nothing, since there is no `pkcs12`");
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

/// Reads a file of authorities: PKCS#12 if it has a password, else PEM.
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

/// Refuses names of entries where there is no PKCS#12 file to have them.
pub(super) fn check_aliases(key: &str, aliases: &[String], password: &Secret) -> Result<(), Error> {
    match aliases.is_empty() || !password.expose().is_empty() {
        true => Ok(()),
        false => {
            let words = "nothing, unless the file is PKCS#12 and has a password";
            Err(Error::keyed(key, Problem::Needed(words)))
        }
    }
}

pub(super) fn in_file(key: &'static str) -> impl Fn(tls::Error) -> Error {
    move |error| Error::keyed(key, Problem::File(error))
}

/// Checks what types cannot say; the keys in errors begin below the listener's `tls`.
pub(super) fn check(tls: &Tls) -> Result<(), Error> {
    for (index, certificate) in tls.certificates.iter().enumerate() {
        certificate.check().map_err(|error| error.under(&format!("certificates[{index}]")))?;
    }
    let has_ca = !tls.client_ca.is_empty();
    if has_ca != (tls.mutual != Mutual::None) {
        let words = "a file if `mutual` is \"requested\" or \"required\", else nothing";
        return Err(Error::keyed("client_ca", Problem::Needed(words)));
    }
    if !has_ca && !tls.client_ca_password.expose().is_empty() {
        let words = "nothing, since there is no `client_ca`";
        return Err(Error::keyed("client_ca_password", Problem::Needed(words)));
    }
    check_aliases("client_ca_aliases", &tls.client_ca_aliases, &tls.client_ca_password)?;
    if !tls.is_on() && tls.mutual != Mutual::None {
        let words = "at least one entry, since `mutual` is set";
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

impl Config {
    /// Reads the files that listeners name, below `folder`, unless that was done before.
    pub(super) fn prepare_tls(&mut self, folder: &Path) -> Result<(), Error> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let prepared = listener.tls.prepare(folder);
            prepared.map_err(|error| error.under(&format!("listeners[{index}].tls")))?;
        }
        Ok(())
    }

    /// Keeps to the listeners of `old`, which only a restart changes, with what is new of their
    /// names, origins and TLS. Where nothing is, what is in force stays, tickets included.
    pub fn keep_listeners(&mut self, old: &Config) {
        let mut kept = old.listeners.clone();
        for (index, listener) in kept.iter_mut().enumerate() {
            let same = |other: &&super::Listener| {
                other.address == listener.address && other.tls.is_on() == listener.tls.is_on()
            };
            let at_place = self.listeners.get(index).filter(same);
            let found = at_place.or_else(|| self.listeners.iter().find(same));
            let Some(found) = found else { continue };
            (listener.name, listener.binding) = (found.name.clone(), found.binding.clone());
            listener.allowed_origins.clone_from(&found.allowed_origins);
            if found.tls != listener.tls {
                listener.tls = found.tls.clone();
            }
        }
        self.listeners = kept;
    }
}
