//! Certificate revocation lists (RFC 5280 section 5), by which authorities take client certificates
//! back before they expire.

use super::files::{Error, FileKind, Roots, read};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::path::Path;
use x509_parser::asn1_rs::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

impl Roots {
    /// Adds the revocation lists of a PEM file. With at least one list, each certificate of a
    /// client's chain below its authority must be covered by a list that is in date, and not be in
    /// it; otherwise the client is refused. A certificate that is itself among the trusted ones is
    /// not looked up: it is taken back by removing it there.
    ///
    /// # Errors
    /// The file cannot be read, is longer than 1 MiB, is not PEM, or has no valid list.
    pub fn revoked_by(mut self, path: &Path) -> Result<Roots, Error> {
        let text = read(path)?;
        let mut found = false;
        for list in CertificateRevocationListDer::pem_slice_iter(&text) {
            let list = list.map_err(|error| Error::new(path, FileKind::Pem(error.to_string())))?;
            let parsed = CertificateRevocationList::from_der(&list);
            if let Err(error) = parsed {
                return Err(Error::new(path, FileKind::BadRevocationList(error.to_string())));
            }
            let mut digest = Sha256::new();
            digest.update(self.digest);
            digest.update(&*list);
            self.digest = digest.finalize().into();
            self.revoked.push(list);
            found = true;
        }
        match found {
            true => Ok(self),
            false => Err(Error::new(path, FileKind::NoRevocationList)),
        }
    }
}
