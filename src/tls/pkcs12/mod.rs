//! Reads certificates and keys from PKCS#12 files.

use super::files::{Error, FileKind, Pair, Roots, make_roots, read};
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;

/// Reads a private key and its certificate chain from a PKCS#12 file: those of the entry `alias`,
/// or of the first entry with both if `alias` is empty.
///
/// # Errors
/// The file cannot be read or has no such entry, or the password is wrong.
pub fn pkcs12_pair(path: &Path, password: &str, alias: &str) -> Result<Pair, Error> {
    let store = pkcs12(path, password, Pkcs12ImportPolicy::Strict)?;
    let found = store.entries().find_map(|(name, entry)| match entry {
        KeyStoreEntry::PrivateKeyChain(found) if alias.is_empty() || is_alias(name, alias) => {
            Some(found).filter(|found| !found.certs().is_empty())
        }
        _ => None,
    });
    let Some(found) = found else {
        let what =
            if alias.is_empty() { FileKind::NoPair } else { FileKind::NoEntry(alias.to_owned()) };
        return Err(Error::new(path, what));
    };
    let chain = found.certs().iter().map(|it| CertificateDer::from(it.as_der().to_vec())).collect();
    let key = PrivatePkcs8KeyDer::from(found.key().as_der().to_vec()).into();
    Ok(Pair { chain, key, file: path.to_owned(), key_file: path.to_owned() })
}

fn pkcs12(path: &Path, password: &str, policy: Pkcs12ImportPolicy) -> Result<KeyStore, Error> {
    KeyStore::from_pkcs12(&read(path)?, password, policy)
        .map_err(|error| Error::new(path, FileKind::Pkcs12(error.to_string())))
}

/// Compares entry names without regard to case, as Java's key stores do.
fn is_alias(name: &str, alias: &str) -> bool {
    name.eq_ignore_ascii_case(alias)
}

/// Reads trusted certificates from a PKCS#12 file: those of the entries `aliases`, or, if `aliases`
/// is empty, all that the file marks as trusted. If it marks none, as in files that were not
/// written by Java, all its certificates are trusted.
///
/// # Errors
/// As [`pkcs12_pair`].
pub fn pkcs12_roots(path: &Path, password: &str, aliases: &[String]) -> Result<Roots, Error> {
    let certificates = |store: &KeyStore, named: &dyn Fn(&str) -> bool| {
        let entries = store.entries().filter(|(name, _)| named(name));
        let der = entries.filter_map(|(_, entry)| match entry {
            KeyStoreEntry::Certificate(it) => Some(it.as_der().to_vec()),
            KeyStoreEntry::PrivateKeyChain(it) => Some(it.certs().first()?.as_der().to_vec()),
            KeyStoreEntry::Secret(_) => None,
        });
        der.map(CertificateDer::from).collect::<Vec<_>>()
    };
    let all = pkcs12(path, password, Pkcs12ImportPolicy::Raw)?;
    let trusted = pkcs12(path, password, Pkcs12ImportPolicy::Strict)?;
    let mut found = Vec::new();
    for alias in aliases {
        let named = |name: &str| is_alias(name, alias);
        let mut its = certificates(&all, &named);
        its.extend(certificates(&trusted, &named));
        if its.is_empty() {
            return Err(Error::new(path, FileKind::NoEntry(alias.clone())));
        }
        found.append(&mut its);
    }
    if aliases.is_empty() {
        found = certificates(&trusted, &|_| true);
        if found.is_empty() {
            found = certificates(&all, &|_| true);
        }
    }
    make_roots(path, found)
}
