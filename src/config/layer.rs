//! The keys that environment variables set: `POLYCAST_SECTION__KEY`.
//!
//! The layer is put into the document tree before it is read, so a variable has the types, ranges
//! and defaults of its key in a file. A variable takes precedence over the file. An error names the
//! variable instead of a line.

use std::ffi::OsStr;
use std::path::Path;

use super::env::References;
use super::environment::Environment;
use super::root::Config;
use super::schema;
use super::secret_file::SECRET_BYTES;
use super::tree::{ConfigKey, ConfigValue, Node};
use crate::settings::error::{Error, Problem};
use crate::settings::section::words_of;

/// The beginning of the names of all variables of this server.
const PREFIX: &str = "POLYCAST_";
/// Between the parts of a key's path.
const SEPARATOR: &str = "__";
/// The end of the name of a variable whose value is the name of a file with the key's value.
const FILE: &str = "_FILE";
/// Maximum number of parts of a path; no key has more than eight.
const MAX_PARTS: usize = 16;

/// The variables of a single application: the rest of their names, and the key of `apps[0]`.
const APP: [(&str, &str); 3] = [("APP_ID", "id"), ("APP_KEY", "key"), ("APP_SECRET", "secret")];

/// Beginnings of names that are used by the tests of this project.
const OF_TESTS: [&str; 2] = ["TEST_", "COUNT_HEAP"];

/// The keys that variables set.
#[derive(Default)]
pub(super) struct Layer {
    /// In order of their paths.
    settings: Vec<Setting>,
    /// Variables that begin as one of this server, and are none.
    unknown: Vec<String>,
}

/// One key that a variable sets.
struct Setting {
    path: Vec<PathPart>,
    /// The name of the variable.
    variable: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathPart {
    Index(usize),
    Name(String),
}

impl Layer {
    /// The keys of all variables of `environment`. The variables `POLYCAST_APP_*` count unless
    /// `has_apps`, which is whether the file has applications. Files that variables name are read
    /// through `references`.
    ///
    /// # Errors
    /// A variable has a malformed name or value, two variables set the same key, or the application
    /// of `POLYCAST_APP_*` is incomplete.
    pub(super) fn read(
        environment: &Environment,
        has_apps: bool,
        references: &References<'_>,
    ) -> Result<Layer, Error> {
        let mut layer = Layer::default();
        for (rest, value) in environment.with_prefix(PREFIX) {
            let of_app = APP.into_iter().find_map(|(name, key)| {
                let tail = rest.strip_prefix(name)?;
                (tail.is_empty() || tail == FILE).then_some((key, !tail.is_empty()))
            });
            match of_app {
                Some(_) if has_apps => layer.unknown.push(rest),
                Some((key, is_file)) => {
                    let path = vec![name_part("apps"), PathPart::Index(0), name_part(key)];
                    layer.add(path, &rest, value, is_file.then_some(references))?;
                }
                None => layer.add_key(&rest, value, references)?,
            }
        }
        layer.settings.sort_by(|one, other| one.path.cmp(&other.path));
        layer.refuse_conflicts()?;
        layer.refuse_half_an_app()?;
        Ok(layer)
    }

    /// Adds the variable of a key, or notes that the variable is not known.
    fn add_key(
        &mut self,
        rest: &str,
        value: &OsStr,
        references: &References<'_>,
    ) -> Result<(), Error> {
        let refuse = |problem: &str| {
            Err(Error::new(Problem::Other(problem.to_owned())).named(&format!("{PREFIX}{rest}")))
        };
        let mut path: Vec<PathPart> = rest.split(SEPARATOR).map(path_part).collect();
        if let [PathPart::Name(name)] = &path[..]
            && !words_of::<Config>().contains(&name.as_str())
        {
            self.unknown.push(rest.to_owned());
            return Ok(());
        }
        if path.len() > MAX_PARTS || path.contains(&name_part("")) {
            return refuse(
                "the name of a variable with `__` must be POLYCAST_SECTION__KEY, with `__` between \
                 all parts of the key's path",
            );
        }
        let is_file = path.len() > 1 && names_file(&mut path);
        self.add(path, rest, value, is_file.then_some(references))
    }

    /// Adds a key with its value; with `files`, the value is the name of the file that has it.
    fn add(
        &mut self,
        path: Vec<PathPart>,
        rest: &str,
        value: &OsStr,
        files: Option<&References<'_>>,
    ) -> Result<(), Error> {
        let variable = format!("{PREFIX}{rest}");
        let refuse = |problem| Error::keyed(path_text(&path), problem).named(&variable);
        let Some(text) = value.to_str() else {
            return Err(refuse(Problem::Other("the value is not UTF-8".to_owned())));
        };
        if text.len() > SECRET_BYTES {
            let problem = format!("the value has more than {SECRET_BYTES} bytes");
            return Err(refuse(Problem::Other(problem)));
        }
        let value = match files {
            Some(files) => files.file(Path::new(text)).map_err(refuse)?,
            None => text.to_owned(),
        };
        self.settings.push(Setting { path, variable, value });
        Ok(())
    }

    /// Refuses two variables of which one sets the other's key, or a part of it.
    fn refuse_conflicts(&self) -> Result<(), Error> {
        for pair in self.settings.windows(2) {
            if pair[1].path.starts_with(&pair[0].path) {
                let problem = Problem::Other(format!(
                    "the variable `{}` sets the same key; set only one of the two",
                    pair[0].variable
                ));
                return Err(
                    Error::keyed(path_text(&pair[1].path), problem).named(&pair[1].variable)
                );
            }
        }
        Ok(())
    }

    /// Refuses an application of which the short variables set one or two keys.
    fn refuse_half_an_app(&self) -> Result<(), Error> {
        let of = |key: &str| {
            let path = format!("apps[0].{key}");
            self.settings.iter().find(|setting| path_text(&setting.path) == path)
        };
        let is_short = |setting: &Setting| !setting.variable.contains(SEPARATOR);
        let Some(given) = APP.iter().find_map(|(_, key)| of(key).filter(|it| is_short(it))) else {
            return Ok(());
        };
        match APP.iter().find(|(_, key)| of(key).is_none()) {
            Some((name, _)) => {
                let given = given.variable.clone();
                let problem = Problem::HalfAnApp { given };
                Err(Error::new(problem).named(&format!("{PREFIX}{name}")))
            }
            None => Ok(()),
        }
    }

    /// Whether a variable sets a key of the section `name`, or all of it.
    pub(super) fn sets(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.path.first() == Some(&name_part(name)))
    }

    /// Warnings of variables without effect, one for each. `text` is the text of the file, in which
    /// they may be used.
    pub(super) fn warnings(&self, text: &str) -> Vec<String> {
        let is_used = |rest: &str| {
            // Kubernetes sets variables with the address of each service: POLYCAST_PORT and others,
            // if the service is called `polycast`.
            let is_of_service = rest.contains("PORT") || rest.ends_with("SERVICE_HOST");
            let is_of_tests = OF_TESTS.iter().any(|start| rest.starts_with(start));
            is_of_service || is_of_tests || text.contains(&format!("{PREFIX}{rest}"))
        };
        let warning = |rest: &String| {
            let why = match rest.starts_with("APP_") {
                true => "because the configuration file has applications",
                false => "because there is no such key at the top level",
            };
            format!("the environment variable {PREFIX}{rest} has no effect, {why}")
        };
        self.unknown.iter().filter(|rest| !is_used(rest)).map(warning).collect()
    }

    /// Refuses to set keys of a Zilla file, which has other ones.
    pub(super) fn refuse_zilla(&self) -> Result<(), Error> {
        match self.settings.first() {
            Some(setting) => {
                let problem = "a variable cannot set a key of a Zilla file; use the options of the \
                               command line, or a configuration in this server's own form";
                Err(Error::new(Problem::Other(problem.to_owned())).named(&setting.variable))
            }
            None => Ok(()),
        }
    }

    /// Puts the values into the document.
    ///
    /// # Errors
    /// An entry of a list is missing before one that a variable sets.
    pub(super) fn apply(&self, document: &mut Node) -> Result<(), Error> {
        for setting in &self.settings {
            insert(document, &setting.path, &setting.value).map_err(|found| {
                let problem = Problem::IndexGap { found };
                Error::keyed(path_text(&setting.path), problem).named(&setting.variable)
            })?;
        }
        Ok(())
    }

    /// Names the variable that an error of the document is about, if it is one; otherwise the
    /// position in the file, which is that of `path` if that is another one than the error's key.
    pub(super) fn attribute(&self, error: Error, document: &Node, path: Option<&str>) -> Error {
        if !error.source_name.is_empty() {
            return error;
        }
        match self.variable_of(&error.key, document) {
            Some(variable) => Error { position: None, ..error.named(&variable) },
            None => {
                let position = document.locate(path.unwrap_or(&error.key));
                error.or_at(position)
            }
        }
    }

    fn variable_of(&self, key: &str, document: &Node) -> Option<String> {
        let paths = || self.settings.iter().map(|it| (path_text(&it.path), &it.variable));
        if let Some((_, variable)) = paths().find(|(path, _)| is_within(key, path)) {
            return Some(variable.clone());
        }
        // A key that is not set: the innermost table that has it says where it should be.
        let mut table = key;
        loop {
            if table.is_empty() || document.locate_whole(table).is_some() {
                return None;
            }
            if let Some((_, variable)) = paths().find(|(path, _)| is_within(path, table)) {
                return Some(if table == key { variable.clone() } else { variable_for(key) });
            }
            table = &table[..table.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// Whether the last part of the path is that of a key with `_file` after it, and not a key itself;
/// if so, it becomes that of the key.
fn names_file(path: &mut [PathPart]) -> bool {
    let Some((PathPart::Name(last), outer)) = path.split_last_mut() else { return false };
    let Some(key) = last.strip_suffix("_file").map(str::to_owned) else { return false };
    let outer = outer.iter().filter_map(|part| match part {
        PathPart::Name(name) => Some(name.as_str()),
        PathPart::Index(_) => None,
    });
    let outer: Vec<&str> = outer.collect();
    let has = |name: &str| schema::find_key(outer.iter().copied().chain([name])).is_some();
    let is_file = has(&key) && !has(last);
    if is_file {
        *last = key;
    }
    is_file
}

/// Whether `path` is `outer`, or a part of it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn name_part(name: &str) -> PathPart {
    PathPart::Name(name.to_owned())
}

fn path_part(text: &str) -> PathPart {
    match text.parse() {
        Ok(index) if text.bytes().all(|byte| byte.is_ascii_digit()) => PathPart::Index(index),
        _ => PathPart::Name(text.to_ascii_lowercase()),
    }
}

/// A path as errors show it: `apps[0].key`.
fn path_text(path: &[PathPart]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            PathPart::Index(index) => text += &format!("[{index}]"),
            PathPart::Name(name) if text.is_empty() => text += name,
            PathPart::Name(name) => text += &format!(".{name}"),
        }
    }
    text
}

/// The variable that sets the key at a path such as `apps[0].key`.
fn variable_for(key: &str) -> String {
    let name = key.replace('[', ".").replace(']', "").replace('.', SEPARATOR);
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

/// Sets the value at `path`. The error is the number of entries of a list that has too few.
fn insert(node: &mut Node, path: &[PathPart], value: &str) -> Result<(), usize> {
    let (next, rest) = match path {
        [] => {
            node.value = ConfigValue::Given(value.to_owned());
            return Ok(());
        }
        [PathPart::Index(index), rest @ ..] => (list_entry(node, *index)?, rest),
        [PathPart::Name(name), rest @ ..] => (table_entry(node, name), rest),
    };
    insert(next, rest, value)
}

/// The entry `name` of a table, which is added if it does not exist.
fn table_entry<'n>(node: &'n mut Node, name: &str) -> &'n mut Node {
    if !matches!(node.value, ConfigValue::Table(_)) {
        node.value = ConfigValue::Table(Vec::new());
    }
    let ConfigValue::Table(entries) = &mut node.value else { unreachable!("it was made a table") };
    let at = entries.iter().position(|(key, _)| key.name == name).unwrap_or_else(|| {
        entries.push((ConfigKey { position: None, name: name.to_owned() }, empty()));
        entries.len() - 1
    });
    &mut entries[at].1
}

/// The entry at `index` of a list, which may be the first one after its end.
fn list_entry(node: &mut Node, index: usize) -> Result<&mut Node, usize> {
    if !matches!(node.value, ConfigValue::List(_)) {
        node.value = ConfigValue::List(Vec::new());
    }
    let ConfigValue::List(entries) = &mut node.value else { unreachable!("it was made a list") };
    if index > entries.len() {
        return Err(entries.len());
    }
    if index == entries.len() {
        entries.push(empty());
    }
    Ok(&mut entries[index])
}

fn empty() -> Node {
    Node { position: None, value: ConfigValue::Null }
}
