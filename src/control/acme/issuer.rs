//! An account at a certificate authority, with the store of its certificates.

use super::failure::OrderFailure;
use super::http::RequestQueue;
use crate::config::Acme;
use crate::control::authorities::Authorities;
use crate::tls::{self, CertificateStore, IssuedCertificates};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The file of the account.
#[derive(Deserialize, Serialize)]
struct AccountFile {
    /// The URL of the directory, by which the configuration checks the file.
    directory: String,
    /// The mail addresses that the certificate authority has.
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// An account, made at the first order and kept in the store.
pub(super) struct Issuer {
    /// The settings, without domains.
    pub(super) settings: Acme,
    pub(super) store: CertificateStore,
    /// The certificates in use.
    pub(super) issued: Arc<IssuedCertificates>,
    /// Whether the certificate authority gives renewal information (RFC 9773).
    pub(super) has_renewal_info: Cell<bool>,
    authorities: Rc<Authorities>,
    /// The account, with the URLs of the directory; locked while it is made, so that it is made
    /// once.
    account: Mutex<Option<Account>>,
}

impl Issuer {
    /// The account of these settings; `system` are the system's certificate authorities.
    pub(super) fn new(
        settings: Acme,
        issued: &Arc<IssuedCertificates>,
        system: &Rc<Authorities>,
    ) -> Issuer {
        Issuer {
            store: settings.certificate_store(),
            issued: issued.clone(),
            has_renewal_info: Cell::new(false),
            authorities: Authorities::of(&settings.ca_file, system),
            account: Mutex::new(None),
            settings,
        }
    }

    /// Forgets what was read of the certificate authority, so that the next order reads its
    /// directory again.
    pub(super) async fn forget(&self) {
        *self.account.lock().await = None;
    }

    /// The account: that of the store, or a new one, which is stored.
    ///
    /// # Errors
    /// The certificate authority cannot be reached or refuses, or the store cannot be used.
    pub(super) async fn account(&self) -> Result<Account, OrderFailure> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        let made = match self.on_disk(|store| store.account()).await? {
            Some(text) => self.restore(&text).await?,
            None => self.create().await?,
        };
        Ok(account.insert(made).clone())
    }

    async fn restore(&self, text: &[u8]) -> Result<Account, OrderFailure> {
        let file = || self.store.account_file();
        // The parser's message is not passed on, because it may contain a part of the key.
        let damaged = |_| {
            let what = tls::FileKind::Account("the content is damaged".to_owned());
            OrderFailure::Store(tls::Error { file: file(), what })
        };
        let mut stored: AccountFile = serde_json::from_slice(text).map_err(damaged)?;
        if stored.directory != self.settings.directory {
            let other = format!("it belongs to the directory {}", stored.directory);
            let what = tls::FileKind::Account(other);
            return Err(OrderFailure::Store(tls::Error { file: file(), what }));
        }
        let copy: AccountFile = serde_json::from_slice(text).map_err(damaged)?;
        let account = Account::builder_with_http(self.client());
        let restored = account.from_credentials(copy.credentials).await;
        let account = restored.map_err(OrderFailure::of)?;
        if stored.contact != self.settings.contact {
            let contact = self.contact();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            account.update_contacts(&contact).await.map_err(OrderFailure::of)?;
            stored.contact.clone_from(&self.settings.contact);
            self.keep(&stored, true).await?;
        }
        Ok(account)
    }

    async fn create(&self) -> Result<Account, OrderFailure> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            // `accept_terms` is true in every valid configuration.
            terms_of_service_agreed: self.settings.accept_terms,
            only_return_existing: false,
        };
        let binding = self.settings.binding();
        let binding = binding.map(|(id, key)| ExternalAccountKey::new(id, &key));
        let directory = self.settings.directory.clone();
        let account = Account::builder_with_http(self.client());
        let created = account.create(&new, directory.clone(), binding.as_ref()).await;
        let (account, credentials) = created.map_err(OrderFailure::of)?;
        let contact = self.settings.contact.clone();
        self.keep(&AccountFile { directory, contact, credentials }, false).await?;
        let (directory, store) = (&self.settings.directory, self.store.folder().display());
        tracing::info!(directory, account = account.id(), %store, "an ACME account was registered");
        Ok(account)
    }

    async fn keep(&self, account: &AccountFile, may_replace: bool) -> Result<(), OrderFailure> {
        let text = serde_json::to_vec(account).unwrap_or_default();
        self.on_disk(move |store| store.put_account(&text, may_replace)).await
    }

    /// Runs `action` on a thread that may block.
    ///
    /// # Errors
    /// That of `action`.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        action: impl FnOnce(&CertificateStore) -> Result<T, tls::Error> + Send + 'static,
    ) -> Result<T, OrderFailure> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || action(&store)).await;
        let done = done.map_err(|error| {
            let what = tls::FileKind::Write(std::io::Error::other(error));
            OrderFailure::Store(tls::Error { file: self.store.folder().to_owned(), what })
        })?;
        done.map_err(OrderFailure::Store)
    }

    fn client(&self) -> Box<RequestQueue> {
        Box::new(RequestQueue::new(self.authorities.clone()))
    }

    fn contact(&self) -> Vec<String> {
        self.settings.contact.iter().map(|address| format!("mailto:{address}")).collect()
    }
}
