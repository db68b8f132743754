//! Reads a configuration: a file, environment variables, or both.

use std::path::{Path, PathBuf};

use super::app::AppConfig;
use super::env::{Lookup, References};
use super::environment::Environment;
use super::import::migrate::{ForeignServer, import_variables};
use super::layer::Layer;
use super::root::Config;
use super::tree::{self, ConfigValue, Node};
use super::{FileFormat, import, parts, profile, read, yaml};
use crate::settings::error::{Error, Problem};

/// Where a configuration comes from. In each case, environment variables also set keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigInput {
    /// A file in TOML or YAML.
    File(PathBuf),
    /// Environment variables only. Without an application, the demo application is served.
    Environment,
    /// The environment variables of another server.
    Foreign(ForeignServer),
}

impl ConfigInput {
    /// The input for the option `--config`.
    pub fn of(file: Option<PathBuf>) -> ConfigInput {
        file.map_or(ConfigInput::Environment, ConfigInput::File)
    }

    /// The configuration file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            ConfigInput::File(file) => Some(file),
            ConfigInput::Environment | ConfigInput::Foreign(_) => None,
        }
    }

    /// The folder of the configuration file, against which its relative file names are resolved;
    /// without a file, the current one.
    pub fn folder(&self) -> &Path {
        self.file().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// The name of the input in messages.
    pub fn name(&self) -> String {
        match self {
            ConfigInput::File(file) => file.display().to_string(),
            ConfigInput::Environment => "environment".to_owned(),
            ConfigInput::Foreign(server) => format!("variables of {server}"),
        }
    }

    /// Reads and checks the configuration and the files that it names, which are relative to
    /// [`folder`](Self::folder).
    ///
    /// # Errors
    /// A file cannot be read, or the configuration is invalid.
    pub fn load(&self, environment: &Environment) -> Result<Config, Error> {
        match self {
            ConfigInput::File(file) => Config::load_with(file, environment),
            ConfigInput::Environment => Config::from_environment(environment),
            ConfigInput::Foreign(server) => {
                let imported = import_variables(*server, environment)?;
                let (text, format) = (imported.toml.as_str(), FileFormat::Toml);
                let lookup: &Lookup<'_> = &|_| None;
                let (name, folder) = (self.name(), Some(self.folder()));
                let name = name.as_str();
                let text = ConfigText { text, format, name, lookup, environment, folder };
                let mut config = text.read()?;
                config.warnings.extend(imported.notes);
                Ok(config)
            }
        }
    }
}

/// A text that is read as a configuration, and what it refers to.
struct ConfigText<'a> {
    text: &'a str,
    format: FileFormat,
    name: &'a str,
    /// The variables of `${NAME}`.
    lookup: &'a Lookup<'a>,
    /// The variables that set keys.
    environment: &'a Environment,
    /// The folder of the files that the configuration names, if they are to be read.
    folder: Option<&'a Path>,
}

impl Config {
    /// Reads and checks a file and the files that it names, which are relative to its folder.
    /// Environment variables set further keys and take precedence.
    ///
    /// # Errors
    /// A file cannot be read, or the configuration is invalid.
    pub fn load(path: &Path) -> Result<Config, Error> {
        Config::load_with(path, &Environment::of_process())
    }

    fn load_with(path: &Path, environment: &Environment) -> Result<Config, Error> {
        let name = path.display().to_string();
        let refuse = |problem| Error::new(problem).named(&name);
        let format = FileFormat::of(path).ok_or_else(|| refuse(Problem::Extension))?;
        let text = std::fs::read_to_string(path).map_err(|error| refuse(Problem::Read(error)))?;
        let folder = Some(path.parent().unwrap_or(Path::new("")));
        let lookup = |variable: &str| environment.get(variable);
        let (text, name) = (text.as_str(), name.as_str());
        ConfigText { text, format, name, lookup: &lookup, environment, folder }.read()
    }

    /// The configuration of environment variables alone. Where a file with the same keys would be
    /// refused because it has no application, the demo application is added: see [`Config::demo`].
    ///
    /// # Errors
    /// A variable is invalid, or a file that one of them names cannot be read.
    pub fn from_environment(environment: &Environment) -> Result<Config, Error> {
        ConfigText {
            text: "",
            format: FileFormat::Toml,
            name: "environment",
            lookup: &|variable| environment.get(variable),
            environment,
            folder: Some(Path::new("")),
        }
        .read_or_demo()
    }

    /// Reads and checks a text, but not the files that it names, except those of `${file:PATH}`.
    /// The variables of `${NAME}` come from the environment, and errors use `name` as the name of
    /// the file.
    pub fn parse(text: &str, format: FileFormat, name: &str) -> Result<Config, Error> {
        Config::parse_with(text, format, name, &|variable| std::env::var(variable).ok())
    }

    /// As [`Config::parse`], with the variables of `${NAME}` from `lookup`.
    pub fn parse_with(
        text: &str,
        format: FileFormat,
        name: &str,
        lookup: &Lookup<'_>,
    ) -> Result<Config, Error> {
        let environment = &Environment::default();
        ConfigText { text, format, name, lookup, environment, folder: None }.read()
    }

    /// As [`Config::parse`], with the variables of `environment`, which also set keys.
    pub fn parse_in(
        text: &str,
        format: FileFormat,
        name: &str,
        environment: &Environment,
    ) -> Result<Config, Error> {
        let lookup = |variable: &str| environment.get(variable);
        ConfigText { text, format, name, lookup: &lookup, environment, folder: None }.read()
    }

    /// The configuration that is served without a configuration file: app `1`, key `app-key`,
    /// secret `app-secret`.
    ///
    /// The secret is public, so the check refuses listeners on addresses that are not loopback
    /// addresses.
    pub fn demo() -> Config {
        let mut demo = Config { apps: vec![demo_app()], is_demo: true, ..Config::default() };
        // Only this machine can reach the demo, so its echo has no message limit of its own.
        demo.routes.iter_mut().for_each(|route| route.message_bytes = 0);
        demo
    }
}

fn demo_app() -> AppConfig {
    AppConfig {
        name: "demo".to_owned(),
        client_events: true,
        ..AppConfig::new("1", "app-key", "app-secret")
    }
}

impl ConfigText<'_> {
    fn read(&self) -> Result<Config, Error> {
        self.convert(false).map_err(|error| self.named(error))
    }

    /// As [`read`](Self::read), with the demo application where no variable gives one, and no
    /// route or protocol that does without.
    fn read_or_demo(&self) -> Result<Config, Error> {
        self.convert(true).map_err(|error| self.named(error))
    }

    fn document(&self) -> Result<Node, Error> {
        match self.format {
            FileFormat::Toml => tree::from_toml(self.text),
            FileFormat::Yaml => yaml::from_yaml(self.text),
        }
    }

    /// Reads and checks the document with the keys that variables set.
    fn convert(&self, may_be_demo: bool) -> Result<Config, Error> {
        let folder = self.folder.unwrap_or(Path::new(""));
        let references = References::new(self.lookup, folder);
        let mut document = self.document()?;
        let layer = Layer::read(self.environment, has_apps(&document), &references)?;
        let is_zilla = self.format == FileFormat::Yaml && import::is_zilla(&document);
        match is_zilla {
            true => layer.refuse_zilla()?,
            false => layer.apply(&mut document)?,
        }
        profile::apply(&mut document, &references);
        let document = &document;
        let is_demo =
            may_be_demo && !["apps", "routes", "zenith"].into_iter().any(|name| layer.sets(name));
        let read = match is_zilla {
            true => import::zilla::read(document, self.lookup, self.name),
            false => read::read(document, &references),
        };
        let mut config: Config = read.map_err(|error| layer.attribute(error, document, None))?;
        if is_demo {
            config = Config { apps: vec![demo_app()], is_demo, ..config };
            config.routes.iter_mut().for_each(|route| route.message_bytes = 0);
        }
        let mut finish = || {
            parts::check(&config)?;
            config.complete();
            config.check()?;
            config.prepare(self.folder)
        };
        finish().map_err(|error| {
            let origin = is_zilla.then(|| import::zilla::origin(&config, &error.key)).flatten();
            layer.attribute(error, document, origin.as_deref())
        })?;
        config.warnings.extend(layer.warnings(self.text));
        config.secret_files = references.into_files();
        Ok(config)
    }

    /// The error with the name of this text, unless it names a variable.
    fn named(&self, error: Error) -> Error {
        if error.source_name.is_empty() { error.named(self.name) } else { error }
    }
}

/// Whether a document has applications.
fn has_apps(document: &Node) -> bool {
    let ConfigValue::Table(entries) = &document.value else { return false };
    let apps = entries.iter().find(|(key, _)| key.name == "apps");
    apps.is_some_and(|(_, apps)| match &apps.value {
        ConfigValue::List(entries) => !entries.is_empty(),
        ConfigValue::Null => false,
        _ => true,
    })
}
