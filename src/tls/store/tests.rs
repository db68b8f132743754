use super::*;
use rcgen::{CertificateParams, KeyPair};
use std::os::unix::fs::PermissionsExt;

/// A store in a new folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = format!("polycast-store-{}-{name}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(folder));
        let _ = fs::remove_dir_all(&folder.0);
        folder
    }

    fn store(&self) -> CertificateStore {
        CertificateStore::new(self.0.join("deep/store"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The key and the certificate of `domain` in PEM.
fn made(domain: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([domain.to_owned()]).unwrap();
    (key.serialize_pem(), params.self_signed(&key).unwrap().pem())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn store_keeps_certificates_and_account_for_the_owner_only() {
    let folder = Folder::new("keeps");
    let store = folder.store();
    assert_eq!(store.certificate("a.test").unwrap(), None, "there is no folder yet");
    assert_eq!(store.account().unwrap(), None);
    let (key, chain) = made("a.test");
    store.put_certificate("a.test", &key, &chain).unwrap();
    let first = store.certificate("a.test").unwrap().expect("it is stored");
    let (key, chain) = made("a.test");
    store.put_certificate("a.test", &key, &chain).unwrap();
    let second = store.certificate("a.test").unwrap().expect("it is replaced");
    assert_ne!(first, second);
    store.put_account(b"one", false).unwrap();
    assert!(store.put_account(b"two", false).is_err(), "another account is never overwritten");
    assert_eq!(store.account().unwrap().as_deref(), Some(&b"one"[..]));
    store.put_account(b"three", true).unwrap();
    assert_eq!(store.account().unwrap().as_deref(), Some(&b"three"[..]));
    store.probe().unwrap();
    let mut names: Vec<_> = fs::read_dir(store.folder()).unwrap().map(|it| it.unwrap()).collect();
    names.sort_by_key(|it| it.file_name());
    let names: Vec<_> = names.iter().map(|it| (it.file_name(), mode(&it.path()))).collect();
    assert_eq!(names, [("a.test.pem".into(), 0o600), ("account.json".into(), 0o600)]);
    assert_eq!(mode(store.folder()), 0o700);
}

#[test]
fn store_never_replaces_what_it_cannot_read() {
    let folder = Folder::new("foreign");
    let store = folder.store();
    store.create().unwrap();
    let file = store.folder().join("a.test.pem");
    let (key, chain) = made("a.test");
    let (other_key, other_chain) = made("b.test");
    let put = || store.put_certificate("a.test", &key, &chain).expect_err("a foreign file");
    for (text, problem) in [
        ("".to_owned(), "contains no certificate"),
        ("rubbish".to_owned(), "contains no certificate"),
        (chain.clone(), "contains no private key"),
        (format!("{other_key}{chain}"), "does not belong to the first certificate"),
        (format!("{other_key}{other_chain}"), "is not for a.test"),
        ("x".repeat(1024 * 1024 + 1), "is longer than 1 MiB"),
    ] {
        fs::write(&file, &text).unwrap();
        for error in [store.certificate("a.test").expect_err(problem), put()] {
            let error = error.to_string();
            assert!(
                error.starts_with(&*file.to_string_lossy()) && error.contains(problem),
                "{error}"
            );
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::write(&file, format!("{key}{chain}")).unwrap();
    store.put_certificate("a.test", &key, &chain).unwrap();
}

#[test]
fn store_that_cannot_be_written_says_so() {
    let folder = Folder::new("file");
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join("deep"), "a file").unwrap();
    let store = folder.store();
    let (key, chain) = made("a.test");
    for error in [
        store.probe().expect_err("no folder"),
        store.put_account(b"one", false).expect_err("no folder"),
        store.certificate("a.test").expect_err("no folder"),
        store.put_certificate("a.test", &key, &chain).expect_err("no folder"),
    ] {
        let error = error.to_string();
        assert!(error.contains("deep/store") && error.contains("Not a directory"), "{error}");
    }
}

#[test]
fn store_checks_a_new_certificate_before_it_is_stored() {
    let folder = Folder::new("checks");
    let store = folder.store();
    let ((key, chain), (other_key, other_chain)) = (made("a.test"), made("b.test"));
    assert_eq!(store.check("a.test", &key, &chain).unwrap().domain, "a.test");
    assert!(store.check("a.test", &other_key, &chain).is_err());
    assert!(store.check("a.test", &other_key, &other_chain).is_err());
    assert!(store.check("a.test", &key, "").is_err());
    assert!(!store.folder().exists());
}
