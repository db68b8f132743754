//! Expansion of `${NAME}`, `${file:PATH}` and `${credential:NAME}` in string values.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::secret_file;
use super::tree::{ConfigValue, Node};
use crate::settings::error::Problem;

/// Looks up an environment variable. It is a parameter so that tests do not need the environment.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The variable by which systemd names the folder of a service's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// What `${...}` in a text may refer to: environment variables, and files that hold a secret.
pub(super) struct References<'a> {
    /// The environment variables.
    pub(super) lookup: &'a Lookup<'a>,
    /// The folder of files with a relative name.
    folder: &'a Path,
    /// The files that have been read.
    files: RefCell<BTreeSet<PathBuf>>,
}

impl<'a> References<'a> {
    /// References to the variables of `lookup`, and to files relative to `folder`.
    pub(super) fn new(lookup: &'a Lookup<'a>, folder: &'a Path) -> References<'a> {
        References { lookup, folder, files: RefCell::default() }
    }

    /// The content of a file that holds a secret.
    pub(super) fn file(&self, name: &Path) -> Result<String, Problem> {
        let file = self.folder.join(name);
        let text = secret_file::read(&file).map_err(|error| Problem::Other(error.to_string()))?;
        self.files.borrow_mut().insert(file);
        Ok(text)
    }

    /// The files that have been read, in order of their names.
    pub(super) fn into_files(self) -> Vec<PathBuf> {
        self.files.into_inner().into_iter().collect()
    }

    fn credential(&self, name: &str) -> Result<String, Problem> {
        let folder = (self.lookup)(CREDENTIALS_DIRECTORY).filter(|folder| !folder.is_empty());
        let folder = folder.ok_or_else(|| Problem::Credentials(name.to_owned()))?;
        self.file(&Path::new(&folder).join(name))
    }
}

/// The text of a value, with its references expanded unless the value comes from a variable; `None`
/// if the value is not a text.
pub(super) fn text_of(node: &Node, references: &References<'_>) -> Result<Option<String>, Problem> {
    match &node.value {
        ConfigValue::Text(text) => expand(text, references).map(Some),
        ConfigValue::Literal(text) | ConfigValue::Given(text) => Ok(Some(text.clone())),
        _ => Ok(None),
    }
}

/// Replaces `${NAME}` and `${NAME:-default}` by the value of the variable, `${file:PATH}` and
/// `${credential:NAME}` by the content of the file, and `$$` by `$`.
///
/// As in a shell, the default applies if the variable is not set or is empty. A value is inserted
/// without further expansion.
fn expand(text: &str, references: &References<'_>) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let inside = after.strip_prefix('{').and_then(|body| body.split_once('}'));
        let (body, tail) = inside.ok_or(Problem::Dollar)?;
        out.push_str(&value(body, references)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(body: &str, references: &References<'_>) -> Result<String, Problem> {
    let is_plain = |name: &&str| !name.is_empty() && !name.contains(":-");
    if let Some(file) = body.strip_prefix("file:") {
        let file = Some(file).filter(is_plain).ok_or(Problem::Dollar)?;
        return references.file(Path::new(file));
    }
    if let Some(name) = body.strip_prefix("credential:") {
        // Only a file of the folder itself, as systemd makes them.
        let is_name = |name: &&str| is_plain(name) && !name.contains('/') && !name.starts_with('.');
        let name = Some(name).filter(is_name).ok_or(Problem::Dollar)?;
        return references.credential(name);
    }
    variable(body, references.lookup)
}

fn variable(body: &str, lookup: &Lookup<'_>) -> Result<String, Problem> {
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    let well_formed = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !well_formed {
        return Err(Problem::Dollar);
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Problem::Environment(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "DOLLAR" => Some("${HOST}".to_owned()),
            "EMPTY" => Some(String::new()),
            "CREDENTIALS_DIRECTORY" => Some(fixtures().to_str().unwrap().to_owned()),
            _ => None,
        };
        let references = References::new(&lookup, fixtures());
        expand(text, &references).map_err(|problem| problem.to_string())
    }

    /// A folder of files with secrets.
    fn fixtures() -> &'static Path {
        static FOLDER: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
            let folder = std::env::temp_dir().join(format!("polycast-env-{}", std::process::id()));
            std::fs::create_dir_all(folder.join("folder")).unwrap();
            let write = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content);
            for (name, content) in [
                ("plain", &b"s3cret"[..]),
                ("line", b"s3cret\n"),
                ("windows", b"s3cret\r\n"),
                ("lines", b"a\nb\n\n"),
                ("dollar", b"${HOST}$"),
                ("empty", b""),
                ("bytes", &[0xff, 0xfe]),
                ("largest", &[b'x'; secret_file::SECRET_BYTES]),
                ("too-large", &[b'x'; secret_file::SECRET_BYTES + 1]),
            ] {
                write(name, content).unwrap();
            }
            folder
        });
        &FOLDER
    }

    #[test]
    fn env_variables_defaults_and_dollars() {
        for (text, value) in [
            ("", ""),
            ("plain", "plain"),
            ("${HOST}:6001", "10.0.0.1:6001"),
            ("${HOST}${HOST}", "10.0.0.110.0.0.1"),
            ("${NONE:-é}.", "é."),
            ("${NONE:-}", ""),
            ("${HOST:-x}", "10.0.0.1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-a:-b}", "a:-b"),
            ("$$", "$"),
            ("$${HOST}", "${HOST}"),
            ("$$$$", "$$"),
            ("$$${HOST}", "$10.0.0.1"),
            ("${DOLLAR}", "${HOST}"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn env_malformed_variables_are_refused() {
        for text in ["$", "$HOST", "${HOST", "${}", "${:-x}", "${A B}", "${1A}", "a$b", "$$$"] {
            assert!(expanded(text).unwrap_err().contains("`$$`"), "{text}");
        }
        assert!(expanded("${NONE}").unwrap_err().contains("`NONE` is not set"));
    }

    #[test]
    fn env_secrets_from_files_and_credentials() {
        for (name, value) in [
            ("plain", "s3cret"),
            ("line", "s3cret"),
            ("windows", "s3cret"),
            ("lines", "a\nb\n"),
            ("dollar", "${HOST}$"),
            ("empty", ""),
            ("largest", &"x".repeat(secret_file::SECRET_BYTES)),
        ] {
            assert_eq!(expanded(&format!("${{file:{name}}}")).as_deref(), Ok(value), "{name}");
            assert_eq!(expanded(&format!("${{credential:{name}}}")).as_deref(), Ok(value));
        }
        let whole = fixtures().join("line");
        let text = format!("Bearer ${{file:{}}}!", whole.display());
        assert_eq!(expanded(&text).as_deref(), Ok("Bearer s3cret!"));
    }

    #[test]
    fn env_files_that_cannot_be_used_are_refused_by_name() {
        for (name, problem) in [
            ("missing", "cannot be read: No such file"),
            ("folder", "is not a regular file"),
            ("bytes", "is not UTF-8"),
            ("too-large", "has more than 65536 bytes"),
        ] {
            for reference in ["file", "credential"] {
                let error = expanded(&format!("${{{reference}:{name}}}")).unwrap_err();
                let file = fixtures().join(name).display().to_string();
                assert!(error.contains(&file) && error.contains(problem), "{error}");
            }
        }
        for text in ["${file:}", "${file:a:-b}", "${credential:}", "${credential:a:-b}"] {
            assert!(expanded(text).unwrap_err().contains("`$$`"), "{text}");
        }
        for text in ["${credential:../plain}", "${credential:/plain}", "${credential:..}"] {
            assert!(expanded(text).unwrap_err().contains("`$$`"), "{text}");
        }
        let without = |name: &str| (name == CREDENTIALS_DIRECTORY).then(String::new);
        for lookup in [&without as &Lookup<'_>, &|_| None] {
            let references = References::new(lookup, fixtures());
            let error = expand("${credential:plain}", &references).unwrap_err().to_string();
            assert!(error.contains("`CREDENTIALS_DIRECTORY` is not set"), "{error}");
        }
    }

    /// A pipe without a writer would block when it is opened.
    #[test]
    fn env_pipes_are_refused_and_do_not_block() {
        let pipe = fixtures().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if !made.is_ok_and(|status| status.success()) {
            return println!("SKIPPED: mkfifo is not installed");
        }
        assert!(expanded("${file:pipe}").unwrap_err().contains("is not a regular file"));
        std::fs::remove_file(pipe).unwrap();
    }
}
