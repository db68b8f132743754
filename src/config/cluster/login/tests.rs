//! The keys of the log-in: what is accepted of them together, and of the files that they name.

use super::*;
use crate::config::{Cluster, Config};
use nkeys::KeyPair;
use std::fs;
use std::path::PathBuf;

/// A folder with a configuration file and the files that it names, which is removed when it is
/// dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = format!("polycast-login-{}-{name}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(folder));
        fs::create_dir_all(&folder.0).unwrap();
        folder
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    /// The section with these keys.
    fn load(&self, url: &str, more: &str) -> Result<Cluster, String> {
        let app = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
        self.put("polycast.toml", &format!("{app}[cluster]\nengine = ['{url}']\n{more}\n"));
        let loaded = Config::load(&self.0.join("polycast.toml"));
        let config = loaded.map_err(|error| error.to_string())?;
        Ok(*config.cluster.expect("a section"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A folder with a certificate, its key, another key, the seed of an nkey and credentials.
fn filled(name: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for file in ["client.pem", "client.key", "rsa.key", "encrypted.key", "ca.pem"] {
        fs::copy(fixtures.join(file), folder.0.join(file)).unwrap();
    }
    let seed = KeyPair::new_user().seed().unwrap();
    folder.put("nkey", &format!("{seed}\n"));
    folder.put("creds", &credentials_with(&seed));
    (folder, seed)
}

/// The text of a file for credentials. Only the engine reads the JWT.
fn credentials_with(seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[test]
fn cluster_login_keys_fit_each_other() {
    let (folder, _) = filled("keys");
    let (pair, user) = ("cert_file = 'client.pem'\nkey_file = 'client.key'", "user = 'a'");
    let user = format!("{user}\npassword = 'b'");
    let tls = "no server of `engine` has a scheme with TLS";
    for (url, more, key, words) in [
        ("tls://a:1", pair.to_owned(), "", ""),
        ("rediss://a:1", pair.to_owned(), "", ""),
        ("rediss+sentinel://a:1/m", pair.to_owned(), "", ""),
        ("rediss+cluster://a:1", format!("{pair}\n{user}"), "", ""),
        ("nats://a:1", pair.to_owned(), "cert_file", tls),
        ("redis://a:1", pair.to_owned(), "cert_file", tls),
        ("redis+sentinel://a:1/m", pair.to_owned(), "cert_file", tls),
        ("tls://a:1", "cert_file = 'client.pem'".to_owned(), "key_file", "or neither of them"),
        ("tls://a:1", "key_file = 'client.key'".to_owned(), "cert_file", "or neither of them"),
        ("nats://a:1", "creds_file = 'creds'".to_owned(), "", ""),
        ("nats://a:1", "nkey_file = 'nkey'".to_owned(), "", ""),
        ("tls://a:1", format!("nkey_file = 'nkey'\n{pair}"), "", ""),
        ("nats://a:1", "creds_file = 'creds'\nnkey_file = 'nkey'".to_owned(), "nkey_file", "creds"),
        ("nats://a:1", format!("creds_file = 'creds'\n{user}"), "creds_file", "`user` is set"),
        ("nats://a:1", format!("nkey_file = 'nkey'\n{user}"), "nkey_file", "`user` is set"),
        ("nats://a:1", "creds_file = 'creds'\ntoken = 'a'".into(), "creds_file", "`token` is set"),
        ("nats://a:1", "nkey_file = 'nkey'\ntoken = 'a'".into(), "nkey_file", "`token` is set"),
        ("redis://a:1", "creds_file = 'creds'".to_owned(), "creds_file", "only NATS has it"),
        ("rediss+cluster://a:1", "nkey_file = 'nkey'".to_owned(), "nkey_file", "only NATS has it"),
    ] {
        let error = folder.load(url, &more).err().unwrap_or_default();
        assert_eq!(error.is_empty(), key.is_empty(), "{url} {more}: {error}");
        let is_named = key.is_empty() || error.contains(&format!("cluster.{key}: expected"));
        assert!(is_named && error.contains(words), "{url} {more}: {error}");
    }
}

#[test]
fn cluster_login_reads_the_certificate_and_its_key() {
    let (folder, _) = filled("pair");
    folder.put("empty", "");
    let load = |cert: &str, key: &str| {
        folder.load("tls://a:1", &format!("cert_file = '{cert}'\nkey_file = '{key}'"))
    };
    let cluster = load("client.pem", "client.key").unwrap();
    assert!(cluster.pair.is_some() && cluster.roots.is_none());
    for (cert, key, named, words) in [
        ("missing", "client.key", "cert_file", "cannot be read"),
        ("empty", "client.key", "cert_file", "contains no certificate"),
        ("client.pem", "missing", "key_file", "cannot be read"),
        ("client.pem", "client.pem", "key_file", "contains no private key"),
        ("client.pem", "encrypted.key", "key_file", "contains an encrypted private key"),
        ("client.pem", "rsa.key", "key_file", "does not belong to the first certificate"),
    ] {
        let error = load(cert, key).expect_err(words);
        let file = folder.0.join(if named == "cert_file" { cert } else { key });
        let wanted = format!("cluster.{named}: {}", file.display());
        assert!(error.contains(&wanted) && error.contains(words), "{cert} {key}: {error}");
    }
}

#[test]
fn cluster_login_reads_seeds_and_credentials() {
    let (folder, seed) = filled("seeds");
    let load = |key: &str, text: &str| {
        folder.put("secret", text);
        folder.load("nats://a:1", &format!("{key} = 'secret'"))
    };
    let whole = credentials_with(&seed);
    let alone = Some(NatsIdentity::Seed(Secret::new(&*seed)));
    for text in [&*seed, &format!("{seed}\n"), &format!("\r\n  {seed}  \r\n"), &whole] {
        assert_eq!(load("nkey_file", text).unwrap().identity, alone, "{text}");
    }
    for text in [&*whole, whole.trim_end(), &whole.replace('\n', "\r\n")] {
        let identity = load("creds_file", text).unwrap().identity;
        assert!(matches!(identity, Some(NatsIdentity::Credentials(_))), "{text}");
    }
    let other = if seed.ends_with('A') { "B" } else { "A" };
    let damaged = format!("{}{other}", &seed[..seed.len() - 1]);
    let long = " ".repeat(64 * 1024 + 1);
    let account = KeyPair::new_account().seed().unwrap();
    for (key, text, words) in [
        ("nkey_file", "", "contains no seed of a user's nkey"),
        ("nkey_file", &account, "contains no seed of a user's nkey"),
        ("nkey_file", &damaged, "contains a seed of an nkey that is damaged"),
        ("nkey_file", &seed[1..], "contains no seed of a user's nkey"),
        ("nkey_file", &long, "has more than 65536 bytes"),
        ("creds_file", "", "does not contain a user's JWT"),
        ("creds_file", &seed, "does not contain a user's JWT"),
        ("creds_file", &credentials_with(&damaged), "does not contain a user's JWT"),
        ("creds_file", &long, "has more than 65536 bytes"),
    ] {
        let error = load(key, text).expect_err(words);
        assert!(error.contains(&format!("cluster.{key}: ")) && error.contains(words), "{error}");
        assert!(error.contains("/secret") && !error.contains(&seed[2..20]), "{error}");
    }
    let missing = folder.load("nats://a:1", "creds_file = 'missing'").expect_err("no file");
    assert!(missing.contains("cluster.creds_file: the file ") && missing.contains("missing"));
}

/// The `Debug` output of a section has no secret of its files.
#[test]
fn cluster_login_has_no_secret_in_debug_output() {
    let (folder, seed) = filled("debug");
    let pair = "cert_file = 'client.pem'\nkey_file = 'client.key'";
    for file in ["creds_file = 'creds'", "nkey_file = 'nkey'"] {
        let cluster = folder.load("tls://a:1", &format!("{file}\n{pair}")).unwrap();
        let text = format!("{cluster:?}");
        assert!(text.contains("client.key"), "{text}");
        assert!(!text.contains(&seed) && !text.contains("a.b.c"), "{text}");
        assert!(text.contains("[secret key elided]"), "{text}");
    }
}
