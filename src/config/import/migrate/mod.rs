//! Converts the configuration of another Pusher server to a file of this server.
//!
//! ```text
//! file | variables -> options (path, value) -> rules of the server -> TOML, and notes
//! ```
//!
//! An option is either converted or named in a note, so that nothing is lost in silence. What is
//! made passes the check of this server.

mod address;
mod cluster;
mod draft;
mod hooks;
mod laravel;
mod names;
mod options;
mod redis;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::FileFormat;
use crate::config::environment::Environment;
use crate::config::root::Config;
use crate::settings::error::{Error, Problem};
use draft::Draft;
use options::Options;

/// The name of a file that stands for the variables of the process.
pub const OF_PROCESS: &str = "env";

/// A server whose configuration can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignServer {
    /// soketi 1.6: its JSON file, and variables that begin with `SOKETI_`.
    Soketi,
    /// sockudo 5: its JSON or TOML file, and its variables.
    Sockudo,
    /// Laravel Reverb: variables that begin with `REVERB_`.
    Reverb,
    /// Pusher Channels, as its customers set it in a Laravel application: variables that begin with
    /// `PUSHER_`.
    Pusher,
}

impl ForeignServer {
    /// All of them.
    pub const ALL: [ForeignServer; 4] = [
        ForeignServer::Soketi,
        ForeignServer::Sockudo,
        ForeignServer::Reverb,
        ForeignServer::Pusher,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ForeignServer::Soketi => "soketi",
            ForeignServer::Sockudo => "sockudo",
            ForeignServer::Reverb => "reverb",
            ForeignServer::Pusher => "pusher",
        }
    }
}

impl fmt::Display for ForeignServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ForeignServer {
    type Err = UnknownServer;

    fn from_str(name: &str) -> Result<ForeignServer, UnknownServer> {
        ForeignServer::ALL.into_iter().find(|it| it.name() == name).ok_or(UnknownServer)
    }
}

/// A name that is not that of a [`ForeignServer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accepted: soketi, sockudo, reverb, pusher")]
pub struct UnknownServer;

/// A converted configuration.
#[derive(Debug)]
pub struct Imported {
    /// The file of this server.
    pub toml: String,
    /// What has no counterpart, or another one than its name says: one line each, which begins with
    /// the name of the option.
    pub notes: Vec<String>,
}

/// Converts files of another server; of an option in several files, the last one counts. The name
/// `env` stands for the variables in `environment`.
///
/// # Errors
/// A file cannot be read or is malformed, an option has a wrong value, or the application has no
/// id, key or secret.
pub fn import(
    server: ForeignServer,
    files: &[PathBuf],
    environment: &Environment,
) -> Result<Imported, Error> {
    let mut options = Options::new(server);
    for file in files {
        match file.as_os_str() == OF_PROCESS {
            true => options.add_environment(environment)?,
            false => options.add_file(file, environment)?,
        }
    }
    convert(options)
}

/// Converts the variables of another server in `environment`.
///
/// # Errors
/// As for [`import`].
pub(in crate::config) fn import_variables(
    server: ForeignServer,
    environment: &Environment,
) -> Result<Imported, Error> {
    let mut options = Options::new(server);
    options.add_environment(environment)?;
    convert(options)
}

fn convert(options: Options) -> Result<Imported, Error> {
    let server = options.server;
    let name = format!("configuration of {server}");
    let mut draft = Draft::default();
    let made = match server {
        ForeignServer::Soketi | ForeignServer::Sockudo => rules::convert(options, &mut draft),
        ForeignServer::Reverb => laravel::reverb(options, &mut draft),
        ForeignServer::Pusher => laravel::pusher(options, &mut draft),
    };
    made.map_err(|error| error.named(&name))?;
    let finish = |draft: &Draft| draft.finish(server).map_err(|error| error.named(&name));
    let imported = finish(&draft)?;
    let Err(error) = check(&imported, &name) else { return Ok(imported) };
    let Some(section) = draft.take_section("cluster") else { return Err(error) };
    let servers = section.get("engine").map(ToString::to_string).unwrap_or_default();
    let text = format!("not converted, because of {}: {}", error.key, error.problem);
    draft.note(&format!("[cluster] with engine = {servers}"), &text);
    let alone = finish(&draft)?;
    check(&alone, &name)?;
    Ok(alone)
}

/// Checks what is made as a server that reads it does. An error says which of our keys is wrong,
/// which is named after the option that it is from.
fn check(imported: &Imported, name: &str) -> Result<(), Error> {
    let read = Config::parse_with(&imported.toml, FileFormat::Toml, name, &|_| None);
    read.map(drop).map_err(|error| {
        let problem = Problem::Other(error.problem.to_string());
        Error::keyed(error.key, problem).named(name)
    })
}
