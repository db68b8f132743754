//! The certificate authorities by which the servers of this thread's requests are verified.

use crate::tls::{self, Roots};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, crypto};

/// Certificate authorities that are read at the first use, on a thread that may block: a slow disk
/// or a network file system delays only the requests that need the file.
#[derive(Default)]
pub(super) struct Authorities {
    /// The file of the authorities; empty for the system's.
    file: String,
    connector: OnceCell<TlsConnector>,
}

impl Authorities {
    /// The authorities of `file`, which is read again for every value that is made. `system` are
    /// the system's, which are used if `file` is empty.
    pub(super) fn of(file: &str, system: &Rc<Authorities>) -> Rc<Authorities> {
        match file {
            "" => system.clone(),
            file => Rc::new(Authorities { file: file.to_owned(), ..Authorities::default() }),
        }
    }

    /// A connector that verifies servers by these authorities. A failure is not remembered.
    ///
    /// # Errors
    /// The file cannot be read, or contains no usable certificate.
    pub(super) async fn connector(&self) -> io::Result<TlsConnector> {
        let read = || async {
            let file = self.file.clone();
            let made = tokio::task::spawn_blocking(move || connector(&file)).await;
            made.map_err(io::Error::other)?.map_err(io::Error::other)
        };
        self.connector.get_or_try_init(read).await.cloned()
    }
}

fn connector(file: &str) -> Result<TlsConnector, tls::Error> {
    let roots = match file {
        "" => Roots::of_system(),
        file => tls::roots(Path::new(file))?,
    };
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("this provider has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(roots.verifier()?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
