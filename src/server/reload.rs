//! A configuration file that is watched, and reloaded when it changes.

use crate::config::{AppConfig, Config, ConfigInput, Environment, Error, Listener, Overrides};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The source of the configuration: the file or the environment, and the options of the command
/// line.
#[derive(Debug)]
pub struct ConfigSource {
    input: ConfigInput,
    overrides: Overrides,
    /// The watched files, which are the configuration file and the files that it names, with the
    /// last known modification time of each.
    seen: Vec<(PathBuf, Option<SystemTime>)>,
    /// The configuration at the start, whose fixed sections stay in force until a restart.
    fixed: Config,
}

impl ConfigSource {
    /// Creates a source for `input`, from which `config` was read, with the command line's
    /// `overrides` applied. Watches the configuration file and the files that it names.
    pub fn new(input: ConfigInput, overrides: Overrides, config: &Config) -> ConfigSource {
        let mut source = ConfigSource { input, overrides, seen: Vec::new(), fixed: config.clone() };
        source.watch(config);
        source
    }

    /// Watches the files that `config` names in place of the earlier ones. A file that was watched
    /// before keeps its last known modification time.
    pub fn watch(&mut self, config: &Config) {
        let folder = self.input.folder();
        let named = config.listeners.iter().flat_map(|listener| listener.tls.files(folder));
        let proxies = config.routes.iter().filter_map(|route| route.proxy.as_ref());
        let named = named.chain(proxies.flat_map(|proxy| proxy.tls.files(folder)));
        let own = self.input.file().map(Path::to_owned).into_iter();
        let files = own.chain(named).chain(config.secret_files.iter().cloned());
        let before = |file: &Path| self.seen.iter().find(|(seen, _)| seen == file).cloned();
        let seen = |file: PathBuf| before(&file).unwrap_or_else(|| (file.clone(), modified(&file)));
        self.seen = files.map(seen).collect();
    }

    /// The watched files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.seen.iter().map(|(file, _)| file.clone()).collect()
    }

    /// Whether a watched file has changed since it was first watched or this was last called.
    pub fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.seen {
            // Skip a missing file: it may be in the middle of being replaced.
            if let Some(modified) = modified(file) {
                changed |= seen.replace(modified) != Some(modified);
            }
        }
        changed
    }

    /// Reads the configuration again and applies the command line's options.
    ///
    /// # Errors
    /// As at the start. The configuration in force is not changed.
    pub fn load(&self) -> Result<Config, Error> {
        self.input.load(&Environment::of_process())?.with(self.overrides.clone())
    }

    /// The names of sections that differ in `config` from the start and only take effect after a
    /// restart.
    pub fn needing_restart(&self, config: &Config) -> Vec<&'static str> {
        let was = &self.fixed;
        let sizes = |config: &Config| {
            let limits = &config.limits;
            let buffers = (limits.receive_buffers, limits.receive_buffer_bytes);
            let mail = (limits.mailbox_messages, limits.connections_per_address);
            (limits.connections, buffers, mail, limits.cached_bytes)
        };
        let listening = |config: &Config| {
            let of = |it: &Listener| (it.address.clone(), it.tls.is_on(), it.v6_only, it.mode);
            config.listeners.iter().map(of).collect::<Vec<_>>()
        };
        let differ = [
            ("threads", was.threads != config.threads || was.pin != config.pin),
            ("io", was.io != config.io),
            ("drain_s", was.drain_s != config.drain_s),
            ("pid_file", was.pid_file != config.pid_file),
            ("listeners", listening(was) != listening(config)),
            ("process", was.process != config.process),
            ("cluster", was.cluster != config.cluster),
            ("log", was.log != config.log),
            ("limits", sizes(was) != sizes(config)),
            ("apps.dialect", spoken_otherwise(was, config)),
            (
                "compression.windows_bytes",
                was.compression.windows_bytes != config.compression.windows_bytes,
            ),
        ];
        differ.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

/// Whether the dialect of an existing application has changed.
fn spoken_otherwise(was: &Config, config: &Config) -> bool {
    let other =
        |app: &&AppConfig| was.apps.iter().any(|it| it.id == app.id && it.dialect != app.dialect);
    config.apps.iter().any(|app| other(&app))
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Webhook;

    #[test]
    fn reload_names_what_needs_a_restart() {
        let config = Config::demo();
        let input = ConfigInput::File(PathBuf::from("polycast.toml"));
        let source = ConfigSource::new(input, Overrides::default(), &config);
        assert!(source.needing_restart(&config).is_empty());
        let mut limits = config.clone();
        limits.apps[0].limits.event_bytes += 1;
        limits.timeouts.close_ms += 1;
        limits.apps[0].subscription_count = true;
        limits.apps[0].webhooks = vec![Webhook::new("http://a")];
        limits.zilliqa.node.replay += 1;
        assert!(source.needing_restart(&limits).is_empty());
        let mut fixed = config;
        fixed.threads += 1;
        fixed.drain_s += 1;
        fixed.pid_file = "/run/polycast.pid".to_owned();
        assert_eq!(source.needing_restart(&fixed), ["threads", "drain_s", "pid_file"]);
        let mut dialect_kind = Config::demo();
        dialect_kind.apps[0].dialect = crate::config::AppDialect::Broadcastt;
        assert_eq!(source.needing_restart(&dialect_kind), ["apps.dialect"]);
        dialect_kind.apps[0].id = "new".to_owned();
        assert!(!source.needing_restart(&dialect_kind).contains(&"apps.dialect"));
    }
}
