//! The folder in which the certificates are kept that a certificate authority has issued to this
//! server, each with its private key in one file, and the account at that authority.
//!
//! A file is replaced atomically: a new file is written beside it, synced and renamed, and then the
//! folder is synced. A file that cannot be read, or that holds something else, is an error and is
//! never replaced. Only the owner can read the files and the folder. All functions block until the
//! disk answers.

use super::files::{Error, FileKind, Pair, read};
use super::issued::IssuedCertificate;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of the file with the account.
const ACCOUNT: &str = "account.json";
/// Permissions of the folder if this module creates it.
const FOLDER_MODE: u32 = 0o700;
/// Permissions of the files.
const FILE_MODE: u32 = 0o600;

/// A folder of issued certificates; see the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStore {
    folder: PathBuf,
}

impl CertificateStore {
    /// The store in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> CertificateStore {
        CertificateStore { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of the account.
    pub fn account_file(&self) -> PathBuf {
        self.folder.join(ACCOUNT)
    }

    fn certificate_file(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("{domain}.pem"))
    }

    /// The stored certificate of `domain` with its key; `None` if none is stored.
    ///
    /// # Errors
    /// The file cannot be read, or does not have a certificate for `domain` and its key.
    pub fn certificate(&self, domain: &str) -> Result<Option<Pair>, Error> {
        let file = self.certificate_file(domain);
        let Some(text) = read_if_there(&file)? else { return Ok(None) };
        let pair = Pair::from_pem(&file, &text)?;
        IssuedCertificate::new(domain, pair.clone())?;
        Ok(Some(pair))
    }

    /// Checks a new certificate of `domain`. `key` and `chain` are in PEM. It is stored by
    /// [`CertificateStore::put_certificate`].
    ///
    /// # Errors
    /// The chain is not for `domain`, or the key does not belong to it.
    pub fn check(&self, domain: &str, key: &str, chain: &str) -> Result<IssuedCertificate, Error> {
        let file = self.certificate_file(domain);
        let pair = Pair::from_pem(&file, format!("{key}\n{chain}").as_bytes())?;
        IssuedCertificate::new(domain, pair)
    }

    /// Stores the certificate of `domain` with its key, both in PEM, in place of an older one.
    ///
    /// # Errors
    /// The file or the folder cannot be written, or the older file is not a certificate of
    /// `domain` with its key.
    pub fn put_certificate(&self, domain: &str, key: &str, chain: &str) -> Result<(), Error> {
        self.certificate(domain)?;
        self.create()?;
        let file = self.certificate_file(domain);
        let text = format!("{}\n{}\n", key.trim_end(), chain.trim_end());
        self.replace(&file, text.as_bytes())
    }

    /// The stored account; `None` if none is stored.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn account(&self) -> Result<Option<Vec<u8>>, Error> {
        read_if_there(&self.account_file())
    }

    /// Stores the account, which replaces a stored one only if `may_replace`.
    ///
    /// # Errors
    /// The file or the folder cannot be written, or another account was stored meanwhile.
    pub fn put_account(&self, text: &[u8], may_replace: bool) -> Result<(), Error> {
        self.create()?;
        let file = self.account_file();
        if may_replace {
            return self.replace(&file, text);
        }
        // Unlike a rename, a link fails if the file exists.
        let beside = beside(&file);
        let linked = write_synced(&beside, text).and_then(|()| fs::hard_link(&beside, &file));
        let removed = fs::remove_file(&beside);
        let stored = linked.and(removed).and_then(|()| sync(&self.folder));
        stored.map_err(|error| Error::new(&file, FileKind::Write(error)))
    }

    /// Creates the folder if it is not there, and checks that files can be written into it.
    ///
    /// # Errors
    /// The folder cannot be created or written.
    pub fn probe(&self) -> Result<(), Error> {
        self.create()?;
        // Unique, because several threads may do this at the same time.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.join(format!(".probe-{}-{number}", std::process::id()));
        let written = write_synced(&file, b"").and_then(|()| fs::remove_file(&file));
        written.map_err(|error| Error::new(&self.folder, FileKind::Write(error)))
    }

    /// Creates the folder, and those above it, if they are not there.
    ///
    /// # Errors
    /// A folder cannot be created.
    pub fn create(&self) -> Result<(), Error> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.folder);
        made.map_err(|error| Error::new(&self.folder, FileKind::Write(error)))
    }

    fn replace(&self, file: &Path, text: &[u8]) -> Result<(), Error> {
        let beside = beside(file);
        let written = write_synced(&beside, text).and_then(|()| fs::rename(&beside, file));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        let written = written.and_then(|()| sync(&self.folder));
        written.map_err(|error| Error::new(file, FileKind::Write(error)))
    }
}

fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read(file) {
        Ok(text) => Ok(Some(text)),
        Err(Error { what: FileKind::Read(error), .. })
            if error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The file that is written before it gets the name of `file`. A crash may leave one behind; the
/// next write replaces it.
fn beside(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".new");
    file.with_file_name(name)
}

/// Writes a new file that only the owner can read.
fn write_synced(file: &Path, text: &[u8]) -> io::Result<()> {
    // A file that a crash has left may have other permissions, which `mode` would not change.
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(file)?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
