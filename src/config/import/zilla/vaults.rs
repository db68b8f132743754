//! Zilla vaults: files of keys and trusted certificates, referred to by the names of their entries.

use super::place::YamlPlace;
use crate::config::tls::Certificate;
use crate::config::{Mutual, ProxyTls, Tls, TlsVersion};
use crate::settings::error::Error;
use crate::settings::secret::Secret;

/// One store (file) of a vault.
struct Store {
    file: String,
    /// Whether the file is PKCS#12; otherwise it is PEM.
    is_pkcs12: bool,
    password: String,
}

impl Store {
    /// The store `kind` of the vault that `binding` names.
    fn of(top: &YamlPlace<'_>, binding: &YamlPlace<'_>, kind: &str) -> Result<Store, Error> {
        let name = binding.need("vault")?.text()?;
        let vault = top.below("vaults")?.into_iter().find(|it| it.name == name);
        let vault =
            vault.ok_or_else(|| binding.wrong(format!("the vault `{name}` does not exist")))?;
        let store = vault.get("options").and_then(|options| options.get(kind));
        let store =
            store.ok_or_else(|| vault.wrong(format!("the options of the vault have no {kind}")))?;
        Ok(Store {
            file: store.need("store")?.text()?,
            is_pkcs12: store.word("type")?.is_none_or(|it| it == "pkcs12"),
            password: store.word("password")?.unwrap_or_default(),
        })
    }

    /// The certificate of the entry `alias`.
    fn certificate(&self, alias: &str) -> Certificate {
        let (file, pem) = (self.file.clone(), self.file.clone());
        match self.is_pkcs12 {
            true => Certificate {
                pkcs12: file,
                password: Secret::new(self.password.clone()),
                alias: alias.to_owned(),
                ..Certificate::default()
            },
            false => Certificate { cert: file, key: pem, ..Certificate::default() },
        }
    }
}

/// Checks every vault, including those that no binding uses.
pub(super) fn check(top: &YamlPlace<'_>) -> Result<(), Error> {
    for vault in top.below("vaults")? {
        vault.only(&["type", "options"])?;
        let kind = vault.need("type")?.text()?;
        if kind != "filesystem" {
            return Err(vault.wrong(format!("a vault of type {kind} is not supported")));
        }
        let Some(options) = vault.get("options") else { continue };
        options.only(&["keys", "trust", "signers"])?;
        for store in options.table()? {
            store.only(&["store", "type", "password"])?;
            store.need("store")?.text()?;
            if let Some(kind) = store.word("type")?
                && !matches!(kind.as_str(), "pkcs12" | "pem")
            {
                return Err(store.wrong(format!("the type must be pkcs12 or pem, not {kind}")));
            }
        }
    }
    Ok(())
}

/// The TLS version of a binding's options, which server and client bindings share. Also checks that
/// `alpn`, if set, includes `http/1.1`.
fn version(options: &YamlPlace<'_>) -> Result<TlsVersion, Error> {
    let protocols = options.texts("alpn")?;
    if let Some(place) = options.get("alpn")
        && !protocols.iter().any(|it| it == "http/1.1")
    {
        return Err(place.wrong("alpn must include http/1.1, which WebSockets require"));
    }
    match options.word("version")?.as_deref() {
        None | Some("TLS" | "TLSv1.2") => Ok(TlsVersion::V12),
        Some("TLSv1.3") => Ok(TlsVersion::V13),
        Some(other) => {
            Err(options.wrong(format!("version must be TLSv1.2 or TLSv1.3, not {other}")))
        }
    }
}

/// The TLS settings of a listener from a binding of type tls, kind server.
pub(super) fn server(top: &YamlPlace<'_>, binding: &YamlPlace<'_>) -> Result<Tls, Error> {
    let options = binding.need("options")?;
    options.only(&["keys", "sni", "alpn", "mutual", "trust", "version"])?;
    let keys = options.texts("keys")?;
    if keys.is_empty() {
        return Err(options.wrong("the key `keys` is missing or empty"));
    }
    let store = Store::of(top, binding, "keys")?;
    let trust = options.texts("trust")?;
    let mut tls = Tls::default();
    tls.certificates = keys.iter().map(|alias| store.certificate(alias)).collect();
    tls.min_version = version(&options)?;
    tls.mutual = match options.word("mutual")?.as_deref() {
        None if trust.is_empty() => Mutual::None,
        None | Some("required") => Mutual::Required,
        Some("requested") => Mutual::Requested,
        Some("none") => Mutual::None,
        Some(other) => {
            let problem = format!("mutual must be required, requested or none, not {other}");
            return Err(options.wrong(problem));
        }
    };
    options.texts("sni")?;
    if tls.mutual != Mutual::None {
        let store = Store::of(top, binding, "trust")?;
        if trust.is_empty() {
            return Err(options.wrong(
                "the key `trust` is missing or empty; clients are verified by these certificates",
            ));
        }
        tls.client_ca = store.file;
        if store.is_pkcs12 {
            (tls.client_ca_password, tls.client_ca_aliases) = (Secret::new(store.password), trust);
        }
    }
    Ok(tls)
}

/// The TLS settings for upstream servers from a binding of type tls, kind client.
pub(super) fn client(top: &YamlPlace<'_>, binding: &YamlPlace<'_>) -> Result<ProxyTls, Error> {
    let mut tls = ProxyTls::default();
    let Some(options) = binding.get("options") else { return Ok(tls) };
    options.only(&["keys", "sni", "alpn", "trust", "trustcacerts", "version"])?;
    tls.min_version = version(&options)?;
    let (trust, keys) = (options.texts("trust")?, options.texts("keys")?);
    let system = options.flag("trustcacerts")?;
    match (trust.is_empty(), system) {
        (true, Some(false)) => {
            return Err(options.wrong("either trust or trustcacerts is required"));
        }
        (true, _) => {}
        (false, system) => {
            let store = Store::of(top, binding, "trust")?;
            (tls.ca_file, tls.ca_system) = (store.file, system == Some(true));
            if store.is_pkcs12 {
                (tls.ca_password, tls.ca_aliases) = (Secret::new(store.password), trust);
            }
        }
    }
    match keys.as_slice() {
        [] => {}
        [alias] => tls.certificate = Store::of(top, binding, "keys")?.certificate(alias),
        _ => {
            return Err(options.wrong(
                "keys must have at most one entry, because a client presents one certificate",
            ));
        }
    }
    match options.texts("sni")?.as_slice() {
        [] => {}
        [name] => tls.server_name = name.clone(),
        _ => {
            return Err(options.wrong(
                "sni must have at most one entry, because a client requests one server name",
            ));
        }
    }
    Ok(tls)
}
