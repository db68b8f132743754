//! The files of a listener's TLS: each accepted form, and the error for each invalid one.

use crate::certs::{Authority, folder};
use polycast::config::Config;
use polycast::runtime;
use std::fs;
use std::path::{Path, PathBuf};

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

/// Creates a folder with the fixtures and with certificates of a new authority.
fn files(name: &str) -> PathBuf {
    let folder = folder(name);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let paths = fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.is_file()) {
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let authority = Authority::new();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    authority.leaf(&["leaf.example"]).write(&folder, "leaf");
    fs::write(folder.join("empty.pem"), "").unwrap();
    let cut = authority.pem().replace("-----END", "");
    fs::write(folder.join("cut.pem"), cut).unwrap();
    fs::write(folder.join("not-der.pem"), cert("bm90IGEgY2VydGlmaWNhdGU=")).unwrap();
    fs::write(folder.join("long.pem"), "x".repeat(1024 * 1024 + 1)).unwrap();
    folder
}

fn cert(base64: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// Loads a configuration whose first listener has the `tls` keys of `tls`.
fn load(folder: &Path, tls: &str) -> Result<Config, String> {
    let path = folder.join("polycast.toml");
    let text = format!("[[listeners]]\naddress = '127.0.0.1:0'\n[listeners.tls]\n{tls}\n{APP}");
    fs::write(&path, text).unwrap();
    let prefix = format!("{}/", folder.display());
    Config::load(&path).map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn tls_files_read_each_form_of_a_key() {
    let folder = files("forms");
    for pair in [
        "cert = 'rsa.pem', key = 'rsa.key'",
        "cert = 'ec.pem', key = 'ec.key'",
        "cert = 'leaf.pem', key = 'leaf.key'",
        "pkcs12 = 'ec.p12', password = 'changeit'",
    ] {
        let config = load(&folder, &format!("certificates = [{{ {pair} }}]")).unwrap();
        assert!(config.listeners[0].tls.acceptor().unwrap().is_some(), "{pair}");
    }
    let all = "certificates = [{ cert = 'rsa.pem', key = 'rsa.key' },\n\
               { pkcs12 = 'ec.p12', password = 'changeit' }]\n\
               mutual = 'required'\nclient_ca = 'ca.pem'\nmin_version = '1.3'\nalpn = []";
    load(&folder, all).unwrap();
    let off = load(&folder, "certificates = []").unwrap();
    assert!(off.listeners[0].tls.acceptor().unwrap().is_none());
}

#[test]
fn tls_files_errors_name_file_and_key() {
    let folder = files("wrong");
    let of_pair = |pair: &str| {
        let tls = format!("certificates = [{{ {pair} }}]");
        load(&folder, &tls).expect_err(pair)
    };
    let at = "polycast.toml:4:";
    for (pair, key, replies) in [
        ("cert = 'none.pem', key = 'ec.key'", "cert", "none.pem cannot be read: No such file"),
        ("cert = 'ec.pem', key = 'none.key'", "key", "none.key cannot be read: No such file"),
        ("cert = 'empty.pem', key = 'ec.key'", "cert", "empty.pem contains no certificate"),
        ("cert = 'ec.key', key = 'ec.key'", "cert", "ec.key contains no certificate"),
        ("cert = 'cut.pem', key = 'ec.key'", "cert", "cut.pem is not PEM"),
        ("cert = 'long.pem', key = 'ec.key'", "cert", "long.pem is longer than 1 MiB"),
        ("cert = 'ec.pem', key = 'ec.pem'", "key", "ec.pem contains no private key"),
        ("cert = 'ec.pem', key = 'encrypted.key'", "key", "encrypted.key contains an encrypted"),
        ("pkcs12 = 'ec.p12', password = 'sesame'", "pkcs12", "ec.p12 is not PKCS#12, or the pas"),
        ("pkcs12 = 'ec.pem'", "pkcs12", "ec.pem is not PKCS#12"),
    ] {
        let error = of_pair(pair);
        let (place, words) = error.split_once(": ").unwrap();
        assert!(place.starts_with(at), "{error}");
        let wanted = format!("listeners[0].tls.certificates[0].{key}: {replies}");
        assert!(words.starts_with(&wanted), "{error}\n{wanted}");
        let base64 = fs::read_to_string(folder.join("ec.key")).unwrap();
        assert!(!error.contains(base64.lines().nth(1).unwrap()) && !error.contains("sesame"));
    }
    for (pair, replies) in [
        ("cert = 'ec.pem', key = 'rsa.key'", "rsa.key contains a private key that does not belong"),
        ("cert = 'not-der.pem', key = 'ec.key'", "not-der.pem "),
    ] {
        let error = of_pair(pair);
        assert!(error.contains(&format!("listeners[0].tls.certificates: {replies}")), "{error}");
    }
}

#[test]
fn tls_files_refuse_certificate_and_key_that_do_not_match() {
    let folder = files("together");
    let pair = "certificates = [{ cert = 'ec.pem', key = 'ec.key' }]\n";
    for (tls, replies) in [
        ("certificates = [{ cert = 'ec.pem' }]", "certificates[0]: expected either"),
        ("certificates = [{ key = 'ec.pem' }]", "certificates[0]: expected either"),
        ("certificates = [{ }]", "certificates[0]: expected either"),
        (
            "certificates = [{ cert = 'ec.pem', key = 'ec.key', pkcs12 = 'ec.p12' }]",
            "certificates[0]: expected either",
        ),
        (&format!("{pair}mutual = 'required'"), "client_ca: expected a file"),
        (&format!("{pair}client_ca = 'ca.pem'"), "client_ca: expected a file"),
        ("mutual = 'requested'\nclient_ca = 'ca.pem'", "certificates: expected at"),
        (
            &format!("{pair}mutual = 'required'\nclient_ca = 'none.pem'"),
            "client_ca: none.pem cannot be read",
        ),
        (
            &format!("{pair}mutual = 'required'\nclient_ca = 'empty.pem'"),
            "client_ca: empty.pem contains no certificate",
        ),
        (
            &format!("{pair}mutual = 'required'\nclient_ca = 'not-der.pem'"),
            "client_ca: not-der.pem contains a certificate that cannot be used",
        ),
        (&format!("{pair}alpn = ['h2']"), "alpn[0]: `h2` is not accepted; accepted: \"http/1.1\""),
        (
            &format!("{pair}min_version = '1.1'"),
            "min_version: `1.1` is not accepted; accepted: 1.2",
        ),
        (&format!("{pair}mutual = 'maybe'"), "mutual: `maybe` is not accepted; accepted: none"),
    ] {
        let error = load(&folder, tls).expect_err(tls);
        assert!(error.contains(&format!("listeners[0].tls.{replies}")), "{tls}\n{error}");
    }
}

#[test]
fn tls_files_reload_takes_only_changes() {
    let folder = files("kept");
    let pair = "certificates = [{ cert = 'leaf.pem', key = 'leaf.key' }]\n";
    let old = load(&folder, pair).unwrap();
    let live = runtime::build(&old).unwrap();
    let reload = |tls: &str| {
        let mut new = load(&folder, tls).unwrap();
        new.keep_listeners(&old);
        let next = live.reload(&old, &new).unwrap();
        let is_kept = next.acceptor(0).unwrap().is_same(live.acceptor(0).unwrap());
        assert_eq!(is_kept, new.listeners[0].tls == old.listeners[0].tls, "{tls}");
        new.listeners[0].tls.clone()
    };
    assert_eq!(reload(pair), old.listeners[0].tls);
    Authority::new().leaf(&["leaf.example"]).write(&folder, "leaf");
    let changed = reload(pair);
    assert_ne!(changed, old.listeners[0].tls);
    assert_ne!(changed.acceptor().unwrap(), old.listeners[0].tls.acceptor().unwrap());
    // Turning TLS on or off needs a restart.
    assert_eq!(reload(""), old.listeners[0].tls);
}
