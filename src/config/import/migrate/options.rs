//! The options of another server, from its files and variables.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::ForeignServer;
use super::names::{Meaning, meaning};
use crate::config::environment::Environment;
use crate::settings::error::{Error, Position, Problem};

/// Maximum size of a file of another server, in bytes.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// An option: its name as the user wrote it, and its value.
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: Value,
}

/// The options of a server, by their paths: parts in lower case with underscores, separated by
/// dots, such as `event_limits.max_name_length`.
pub(super) struct Options {
    pub(super) server: ForeignServer,
    settings: BTreeMap<String, Setting>,
    /// Notes about variables, each with its name.
    notes: Vec<(String, String)>,
}

impl Options {
    pub(super) fn new(server: ForeignServer) -> Options {
        Options { server, settings: BTreeMap::new(), notes: Vec::new() }
    }

    /// Adds the variables of the server in the environment.
    pub(super) fn add_environment(&mut self, environment: &Environment) -> Result<(), Error> {
        for (name, value) in environment.with_prefix("") {
            if !matches!(meaning(self.server, &name), Meaning::Foreign) {
                let text = value.to_str().ok_or_else(|| {
                    Error::new(Problem::Other("the value is not UTF-8".to_owned())).named(&name)
                })?;
                self.add_variable(name, text.to_owned());
            }
        }
        Ok(())
    }

    /// Adds the options of a file: JSON, TOML (`.toml`), or variables.
    pub(super) fn add_file(&mut self, file: &Path, environment: &Environment) -> Result<(), Error> {
        let name = file.display().to_string();
        let text = read(file).map_err(|problem| Error::new(problem).named(&name))?;
        let has_files = matches!(self.server, ForeignServer::Soketi | ForeignServer::Sockudo);
        let is_toml = file.extension().is_some_and(|it| it.eq_ignore_ascii_case("toml"));
        let is_php = text.trim_start().starts_with("<?php");
        let added = match (has_files, is_toml, text.trim_start().starts_with('{')) {
            _ if is_php => Err(Error::new(Problem::Other(
                "a PHP file cannot be read; give the application's .env file, and add what is only \
                 in the PHP file by hand"
                    .to_owned(),
            ))),
            (true, true, _) => self.add_document(from_toml(&text), environment),
            (true, false, true) => self.add_document(from_json(&text), environment),
            _ => self.add_env_file(&text),
        };
        added.map_err(|error| error.named(&name))
    }

    fn add_document(
        &mut self,
        document: Result<Value, Error>,
        environment: &Environment,
    ) -> Result<(), Error> {
        let mut document = document?;
        if self.server == ForeignServer::Sockudo {
            expand(&mut document, environment)?;
        }
        let Value::Object(document) = document else {
            return Err(Error::new(Problem::Other("expected an object".to_owned())));
        };
        for (name, value) in document {
            self.add(name.clone(), &name, value);
        }
        Ok(())
    }

    /// Adds an option, and the options below it if it is an object or a list of objects.
    fn add(&mut self, name: String, path: &str, value: Value) {
        let path = snake_case(path);
        // The webhooks of an application are one option, because their headers have free names.
        let is_whole = path.ends_with(".webhooks") && path.starts_with("app_manager.");
        match value {
            Value::Null => {}
            Value::Object(below) if !is_whole => {
                for (key, value) in below {
                    self.add(format!("{name}.{key}"), &format!("{path}.{key}"), value);
                }
            }
            Value::Array(list) if !is_whole && list.iter().any(Value::is_object) => {
                for (index, value) in list.into_iter().enumerate() {
                    self.add(format!("{name}.{index}"), &format!("{path}.{index}"), value);
                }
            }
            value => {
                self.settings.insert(path, Setting { name, value });
            }
        }
    }

    fn add_env_file(&mut self, text: &str) -> Result<(), Error> {
        let mut seen = BTreeMap::<String, ()>::new();
        for variable in dotenvy::from_read_iter(text.as_bytes()) {
            let (name, value) = variable.map_err(|error| malformed(&error, text))?;
            if seen.insert(name.clone(), ()).is_some() {
                self.notes.push((name.clone(), "is set twice; the last value is used".to_owned()));
            }
            // The names of sockudo's variables have nothing in common, so any other may be meant
            // for it.
            let is_foreign = matches!(meaning(self.server, &name), Meaning::Foreign);
            if is_foreign && self.server == ForeignServer::Sockudo {
                let text = "is another program's, or newer than this importer";
                self.notes.push((name, text.to_owned()));
            } else {
                self.add_variable(name, value);
            }
        }
        Ok(())
    }

    /// Adds a variable of the server. An empty one counts as not set.
    fn add_variable(&mut self, name: String, text: String) {
        match meaning(self.server, &name) {
            _ if text.is_empty() => {}
            Meaning::Foreign => {}
            Meaning::Option(path) => {
                let is_json = self.server == ForeignServer::Soketi;
                let json = serde_json::from_str(&text).ok().filter(|_| is_json);
                self.settings.remove(path);
                self.add(name, path, json.unwrap_or(Value::String(text)));
            }
            Meaning::Without(why) => self.notes.push((name, why.to_owned())),
        }
    }

    /// Takes an option by its path.
    pub(super) fn take(&mut self, path: &str) -> Option<Setting> {
        self.settings.remove(path)
    }

    /// Takes the notes about variables.
    pub(super) fn take_notes(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.notes)
    }

    /// Takes all options that are left.
    pub(super) fn take_rest(&mut self) -> BTreeMap<String, Setting> {
        std::mem::take(&mut self.settings)
    }

    /// Takes the options below `prefix`, by the rest of their paths.
    pub(super) fn take_below(&mut self, prefix: &str) -> BTreeMap<String, Setting> {
        let all = std::mem::take(&mut self.settings);
        let (below, rest) = all.into_iter().partition(|(path, _)| path.starts_with(prefix));
        self.settings = rest;
        let below: BTreeMap<String, Setting> = below;
        below.into_iter().map(|(path, it)| (path[prefix.len()..].to_owned(), it)).collect()
    }
}

impl Setting {
    fn wrong(&self, expected: &str) -> Error {
        Error::keyed(self.name.clone(), Problem::Other(format!("expected {expected}")))
    }

    /// A text; a number is written with its digits.
    pub(super) fn text(&self) -> Result<String, Error> {
        match &self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(truth) => Ok(truth.to_string()),
            _ => Err(self.wrong("a text")),
        }
    }

    /// A boolean, also as 1, 0, `yes`, `no`, `on` and `off`.
    pub(super) fn flag(&self) -> Result<bool, Error> {
        let text = self.text().map_err(|_| self.wrong("true or false"))?;
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A number, also as a text.
    pub(super) fn number(&self) -> Result<f64, Error> {
        let digits = self.text().map_err(|_| self.wrong("a number"))?;
        let number: f64 = digits.trim().parse().map_err(|_| self.wrong("a number"))?;
        if number.is_finite() { Ok(number) } else { Err(self.wrong("a number")) }
    }

    /// A list of texts, also as one text with commas.
    pub(super) fn texts(&self) -> Result<Vec<String>, Error> {
        match &self.value {
            Value::Array(list) => list
                .iter()
                .map(|entry| entry.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| self.wrong("a list of texts")),
            _ => Ok(self.text()?.split(',').map(|part| part.trim().to_owned()).collect()),
        }
    }
}

fn read(file: &Path) -> Result<String, Problem> {
    let opened = std::fs::File::open(file).map_err(Problem::Read)?;
    let mut content = Vec::new();
    opened.take(FILE_BYTES + 1).read_to_end(&mut content).map_err(Problem::Read)?;
    if content.len() as u64 > FILE_BYTES {
        return Err(Problem::Other(format!("the file has more than {FILE_BYTES} bytes")));
    }
    String::from_utf8(content).map_err(|_| Problem::Other("the file is not UTF-8".to_owned()))
}

fn from_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| {
        let position = Position { line: error.line(), column: error.column() };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Error::at(Problem::Syntax(message), Some(position))
    })
}

fn from_toml(text: &str) -> Result<Value, Error> {
    let refuse = |message: &str| {
        let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
        Error::new(Problem::Syntax(lines.collect::<Vec<_>>().join("; ")))
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let position = before.map(|before| {
            let line = before.matches('\n').count() + 1;
            Position { line, column: before.chars().rev().take_while(|c| *c != '\n').count() + 1 }
        });
        refuse(error.message()).or_at(position)
    })?;
    serde_json::to_value(table).map_err(|error| refuse(&error.to_string()))
}

/// The error of a line of variables. The line is not in it, because it may have a secret.
fn malformed(error: &dotenvy::Error, text: &str) -> Error {
    let dotenvy::Error::LineParse(line, _) = error else {
        return Error::new(Problem::Other("the variables cannot be read".to_owned()));
    };
    let first = line.lines().next().unwrap_or_default().trim();
    let at = text.lines().position(|line| line.trim() == first);
    let position = at.map(|at| Position { line: at + 1, column: 1 });
    let problem = "expected NAME=value, with quotes around a value that has spaces or `#`";
    Error::at(Problem::Syntax(problem.to_owned()), position)
}

/// Expands `${NAME}` and `${NAME:-default}` in texts, as sockudo does before it reads the file.
fn expand(value: &mut Value, environment: &Environment) -> Result<(), Error> {
    match value {
        Value::String(text) if text.contains("${") => {
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some((before, inside)) = rest.split_once("${") {
                let (body, after) = inside.split_once('}').unwrap_or((inside, ""));
                let (name, default) = body
                    .split_once(":-")
                    .map_or((body, None), |(name, it)| (name, Some(it.to_owned())));
                let found = environment.get(name).filter(|it| !it.is_empty()).or(default);
                out += before;
                out += &found.ok_or_else(|| Error::new(Problem::Environment(name.to_owned())))?;
                rest = after;
            }
            *text = out + rest;
        }
        Value::Array(list) => list.iter_mut().try_for_each(|it| expand(it, environment))?,
        Value::Object(table) => {
            table.iter_mut().try_for_each(|(_, it)| expand(it, environment))?;
        }
        _ => {}
    }
    Ok(())
}

/// `maxPayloadInKb` and `MaxPayloadInKb` as `max_payload_in_kb`.
fn snake_case(path: &str) -> String {
    let mut out = String::new();
    for letter in path.chars() {
        let begins = out.is_empty() || out.ends_with(['.', '_']);
        if letter.is_ascii_uppercase() && !begins {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
