use super::*;
use crate::config::{Config, FileFormat};
use std::fs;
use std::path::PathBuf;

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

/// A listener whose ACME section begins on line 6, with the domains on line 7 and the store on line
/// 8; `more` follows on line 9.
fn listener(port: u16, domains: &str, store: &str, more: &str) -> String {
    format!(
        "[[listeners]]\naddress = '127.0.0.1:{port}'\n[listeners.tls]\n\n[listeners.tls.acme]\n\
         accept_terms = true\ndomains = [{domains}]\nstore = '{store}'\n{more}\n"
    )
}

fn error(text: &str) -> Option<String> {
    let parsed = Config::parse(&format!("{text}{APP}"), FileFormat::Toml, "f");
    parsed.err().map(|error| error.to_string())
}

/// Checks texts, each with the beginning of its error, or "" if it is valid.
fn check_all(cases: &[(String, &str)]) {
    for (text, refusal) in cases {
        match error(text) {
            None => assert!(refusal.is_empty(), "no error: {text}"),
            Some(found) => {
                assert!(!refusal.is_empty() && found.starts_with(refusal), "{text}: {found}");
            }
        }
    }
}

#[test]
fn acme_domains_are_refused_with_key_and_line() {
    let label = "x".repeat(63);
    let long = format!("{}{}", format!("{label}.").repeat(3), "y".repeat(61));
    let many =
        |count: usize| (0..count).map(|it| format!("'d{it}.test'")).collect::<Vec<_>>().join(", ");
    let of = |domains: &str| listener(0, domains, "s", "");
    let one = |domain: &str| of(&format!("'{domain}'"));
    let refused = "f:7:12: listeners[0].tls.acme.domains[0]: `";
    let whole = "f:7:1: listeners[0].tls.acme.domains: ";
    check_all(&[
        (one("a.test"), ""),
        (of(""), whole),
        (of(&many(100)), ""),
        (of(&many(101)), whole),
        (of("'a.test', 'a.test'"), "f:7:22: listeners[0].tls.acme.domains[1]: "),
        (one("*.test"), "f:7:12: listeners[0].tls.acme.domains[0]: `*.test` is not accepted"),
        (one("A.test"), refused),
        (one("b\u{fc}cher.test"), refused),
        (one("xn--bcher-kva.test"), ""),
        (one("127.0.0.1"), refused),
        (one("a..test"), refused),
        (one("a.test."), refused),
        (one("-a.test"), refused),
        (one("a-.test"), refused),
        (one("../../etc"), refused),
        (one("localhost"), ""),
        (one(&format!("{label}.test")), ""),
        (one(&format!("x{label}.test")), refused),
        (one(&long), ""),
        (one(&format!("{long}z")), refused),
    ]);
}

#[test]
fn acme_section_is_refused_with_key_and_line() {
    let with = |more: &str| listener(0, "'a.test'", "s", more);
    let terms = "f:6:1: listeners[0].tls.acme.accept_terms: expected true: ";
    let secret = "f:10:1: listeners[0].tls.acme.eab_key: the value (not shown)";
    let contact = "f:9:12: listeners[0].tls.acme.contact[0]: `";
    let directory = "f:9:1: listeners[0].tls.acme.directory: `";
    check_all(&[
        (with("").replace("accept_terms = true", ""), "f:5:"),
        (with("").replace("= true", "= false"), terms),
        (listener(0, "'a.test'", "", ""), "f:8:1: listeners[0].tls.acme.store: expected a folder"),
        (with("contact = ['ops@a.test']"), ""),
        (with("contact = ['mailto:ops@a.test']"), contact),
        (with("contact = ['ops']"), contact),
        (with("contact = ['a@b@c']"), contact),
        (with("contact = ['a@b?cc=c']"), contact),
        (with("directory = 'http://ca.test/dir'"), directory),
        (with("directory = 'https://'"), directory),
        (with("directory = 'https://ca.test/dir'"), ""),
        (with("challenge = 'dns-01'"), "f:9:13: listeners[0].tls.acme.challenge: "),
        (with("challenge = 'http-01'"), ""),
        (with("eab_key_id = 'k'"), "f:9:1: listeners[0].tls.acme.eab_key_id: "),
        (with("eab_key = 'azE'"), "f:5:"),
        (with("eab_key_id = 'k'\neab_key = 'azE'"), ""),
        (with("eab_key_id = 'k'\neab_key = 'azE='"), ""),
        (with("eab_key_id = 'k'\neab_key = 'secret!'"), secret),
        (with("renew_before_days = 365"), ""),
        (with("renew_before_days = 366"), "f:9:1: listeners[0].tls.acme.renew_before_days: "),
        (with("wildcard = true"), "f:9:1: listeners[0].tls.acme.wildcard: unknown key"),
    ]);
}

#[test]
fn acme_challenge_must_fit_the_tls_settings() {
    let text = |tls: &str, more: &str| {
        listener(0, "'a.test'", "s", more)
            .replace("[listeners.tls]\n", &format!("[listeners.tls]\n{tls}"))
    };
    let found = error(&text("alpn = []", "")).unwrap();
    assert!(found.starts_with("f:4:1: listeners[0].tls.alpn: expected \"http/1.1\""), "{found}");
    assert_eq!(error(&text("alpn = []", "challenge = 'http-01'")), None);
    let mutual = "mutual = 'required'; client_ca = 'ca.pem'".replace("; ", "\n");
    let found = error(&text(&mutual, "")).unwrap();
    assert!(found.contains(": listeners[0].tls.acme.challenge: expected \"http-01\""), "{found}");
    assert_eq!(error(&text(&mutual, "challenge = 'http-01'")), None);
    assert_eq!(error(&text(&mutual.replace("required", "requested"), "")), None);
}

#[test]
fn acme_sections_of_two_listeners_must_agree() {
    let two = |one: &str, other: &str| error(&format!("{one}{other}"));
    let (a, b) = ("'a.test'", "'b.test'");
    assert_eq!(two(&listener(1, a, "s", ""), &listener(2, a, "s", "")), None, "one certificate");
    assert_eq!(two(&listener(1, a, "s", ""), &listener(2, b, "s", "")), None, "one account");
    assert_eq!(two(&listener(1, a, "s", ""), &listener(2, b, "t", "")), None, "two accounts");
    let found = two(&listener(1, a, "s", ""), &listener(2, a, "t", "")).unwrap();
    assert!(found.contains(": listeners[1].tls.acme.domains[0]: "), "{found}");
    assert!(found.contains("listeners[0].tls.acme.domains[0]"), "{found}");
    let other = listener(2, b, "s", "challenge = 'http-01'");
    let found = two(&listener(1, a, "s", ""), &other).unwrap();
    assert!(found.contains(": listeners[1].tls.acme.store: expected another folder"), "{found}");
}

/// A folder with a configuration file, which is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, text: &str) -> Folder {
        let folder = format!("polycast-acme-{}-{name}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(folder));
        fs::create_dir_all(folder.0.join("store")).unwrap();
        fs::write(folder.0.join("polycast.toml"), format!("{text}{APP}")).unwrap();
        folder
    }

    fn load(&self) -> Result<Config, String> {
        Config::load(&self.0.join("polycast.toml")).map_err(|error| error.to_string())
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.join("store").join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn acme_store_is_read_with_the_configuration() {
    let more = "directory = 'https://ca.test/dir'";
    let folder = Folder::new("reads", &listener(0, "'a.test', 'b.test'", "store", more));
    let config = folder.load().unwrap();
    assert_eq!(config.stored, []);
    let store = folder.0.join("store");
    assert_eq!(config.acme_stores(), std::slice::from_ref(&store), "relative to the file");
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let pem = format!("{}{chain}", key.serialize_pem());
    folder.put("a.test.pem", &pem);
    folder.put("account.json", "{\"directory\":\"https://ca.test/dir\",\"x\":1}");
    let config = folder.load().unwrap();
    assert_eq!(config.stored.iter().map(|it| &*it.domain).collect::<Vec<_>>(), ["a.test"]);
    let again = config.with(crate::config::Overrides::default()).unwrap();
    assert_eq!((again.stored.len(), again.acme_stores()), (1, vec![store]));
    for (name, text, problem) in [
        ("b.test.pem", &*pem, "b.test.pem contains a certificate that is not for b.test"),
        ("a.test.pem", "", "a.test.pem contains no certificate"),
        (
            "account.json",
            "{",
            "account.json is not the ACME account that is configured: the content is damaged",
        ),
        (
            "account.json",
            "{\"directory\":\"https://other.test/\"}",
            "it belongs to the directory https://other.test/",
        ),
    ] {
        let before = fs::read(folder.0.join("store").join(name)).ok();
        folder.put(name, text);
        let error = folder.load().expect_err(problem);
        assert!(error.contains(":8:1: listeners[0].tls.acme.store: "), "{error}");
        assert!(error.contains(problem), "{error}");
        match before {
            Some(before) => fs::write(folder.0.join("store").join(name), before).unwrap(),
            None => fs::remove_file(folder.0.join("store").join(name)).unwrap(),
        }
    }
    folder.load().unwrap();
}

#[test]
fn acme_ca_file_is_read_with_the_configuration() {
    let more = "ca_file = 'ca.pem'";
    let folder = Folder::new("ca", &listener(0, "'a.test'", "store", more));
    let error = folder.load().expect_err("no file");
    assert!(error.contains(":9:1: listeners[0].tls.acme.ca_file: "), "{error}");
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["ca.test".to_owned()]).unwrap();
    fs::write(folder.0.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let config = folder.load().unwrap();
    let acme = config.acme_sections().next().unwrap();
    assert_eq!(acme.ca_file, folder.0.join("ca.pem").to_string_lossy());
    let files = config.listeners[0].tls.files(&folder.0);
    assert_eq!(files, [folder.0.join("ca.pem")], "it is watched");
}

#[test]
fn acme_binding_is_decoded() {
    let acme =
        Acme { eab_key_id: "kid-1".to_owned(), eab_key: Secret::new("AQL-_w"), ..Acme::default() };
    assert_eq!(acme.binding(), Some(("kid-1".to_owned(), vec![1, 2, 0xfe, 0xff])));
    assert_eq!(Acme::default().binding(), None);
}
