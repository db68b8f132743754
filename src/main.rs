//! The `polycast` command: arguments, configuration, run, exit code.
//!
//! Exit codes: 0 success; 1 the server cannot start, or a part of it has failed; 2 wrong arguments
//! or configuration; 78 io_uring is demanded and cannot be used; 130 a second signal during the
//! drain.

#![deny(unsafe_code)]
#![warn(rust_2018_idioms, unreachable_pub)]

mod events;
mod log;

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use polycast::config::{
    self, Config, ConfigInput, Environment, FileFormat, ForeignServer, IoDriver, ListenAddress,
    LogFormat, Overrides,
};
use polycast::{parts, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_USAGE: u8 = 2;
const EXIT_NO_IO_URING: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  polycast                                  serve the demo application on 127.0.0.1:6001
  polycast --config polycast.toml           serve with this configuration file
  polycast check polycast.toml              check this configuration file and exit
  polycast genconfig -o polycast.toml       write a configuration with every key and fresh secrets
  polycast import soketi config.json        convert another server's configuration
  polycast -c polycast.yaml --listen 0.0.0.0:6001 --listen '[::]:6001'
  polycast --log-level warn,polycast=debug --log-format json
  polycast upgrade --config polycast.toml   let the running server start its new binary
  polycast doctor                           check whether this kernel can run the server

Without --config, the server serves one demo application, on loopback addresses only:
  id 1, key app-key, secret app-secret

Exit codes:
  0    the command has succeeded
  1    the server cannot start (an address is in use, a system call fails), or a part of it has
       failed; with `doctor --restrictions`: a forbidden operation was not refused; with
       `upgrade`: the server has not been replaced
  2    the arguments or the configuration are invalid
  78   io_uring is demanded (`--io io_uring`) and cannot be used
  130  a second SIGTERM or SIGINT has ended the server during its drain";

/// Publishes an event once and delivers it to every WebSocket subscriber.
#[derive(Parser)]
#[command(version = version(), after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until a signal ends the server; this is the default command
    Serve(Serve),
    /// Check the configuration and exit
    Check {
        /// The configuration file: .toml, .yaml or .yml. Without it, only the environment variables
        /// POLYCAST_* are checked, which otherwise set keys over those of the file
        file: Option<PathBuf>,
        /// Also log in at the engine of the configuration's cluster, and report what it lacks
        #[arg(long)]
        engine: bool,
    },
    /// Print what a configuration file may contain
    Config {
        /// The example file with every key, or the reference of all keys in Markdown
        #[arg(value_parser = PossibleValuesParser::new(["example", "reference"]))]
        what: String,
    },
    /// Write a configuration with every key as a comment or at its default, and with fresh secrets
    Genconfig {
        /// The file to write, .toml, which must not exist; only its owner may read it. Without it,
        /// the configuration is printed
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Convert the configuration of soketi, sockudo, Laravel Reverb or Pusher, and print it
    ///
    /// What has no counterpart is named on standard error.
    Import {
        /// soketi, sockudo, reverb or pusher
        server: ForeignServer,
        /// Its configuration file, or a file of variables (.env); `env` stands for the variables of
        /// this process. The last of several files takes precedence
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a JSON Schema of the configuration, for editors
    Schema,
    /// Let the running server replace itself by the binary that is on disk now, and wait for the
    /// outcome. The configuration is checked first; it must have a pid_file
    Upgrade {
        /// The configuration file of the running server. Without it, only variables are read
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Report what this kernel supports and whether that is enough
    Doctor {
        /// Apply the restrictions of a hardened server, and check that forbidden operations fail
        #[arg(long)]
        restrictions: bool,
        /// Check for this driver; auto is io_uring where it can be used, else epoll
        #[arg(long, value_name = "DRIVER", value_parser = io_drivers(), default_value = "auto")]
        io: IoDriver,
        /// Also log in at the engine of this configuration's cluster, and report what it lacks
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a script that completes the arguments of this program in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of this program, for `man --local-file -`
    Man,
}

#[derive(Args)]
struct Serve {
    /// The configuration file: .toml, .yaml or .yml. The environment variables POLYCAST_* set
    /// further keys; without a file and an application among them, a demo application is served
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the configuration from the environment variables of this server, which this one
    /// replaces: soketi (SOKETI_*), sockudo, reverb (REVERB_*) or pusher (PUSHER_*)
    #[arg(long, value_name = "SERVER", conflicts_with = "config")]
    compat: Option<ForeignServer>,
    /// Listen on this address (IP and port, or unix:/path) instead of the configured ones, with the
    /// other settings of the configured listener, such as tls; may be given several times. Refused
    /// if the configuration has listeners that differ in these settings
    #[arg(short, long, value_name = "ADDR")]
    listen: Vec<ListenAddress>,
    /// The number of reactors, one thread each; 0 is one reactor per core
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Do not pin each thread to a core
    #[arg(long)]
    no_pin: bool,
    /// How the reactors talk to the kernel; auto is io_uring where it can be used, else epoll
    #[arg(long, value_name = "DRIVER", value_parser = io_drivers())]
    io: Option<IoDriver>,
    /// off, error, warn, info, debug, trace, or directives such as warn,polycast=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// The format of log lines
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["text", "json"]))]
    log_format: Option<String>,
}

/// The words of `--io`, which are those of the configuration.
fn io_drivers() -> impl TypedValueParser<Value = IoDriver> {
    PossibleValuesParser::new(["auto", "io_uring", "epoll"]).map(|word| match word.as_str() {
        "io_uring" => IoDriver::IoUring,
        "epoll" => IoDriver::Epoll,
        _ => IoDriver::Auto,
    })
}

fn main() -> ExitCode {
    polycast::mem::return_freed_soon();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(arguments)) => serve(arguments),
        Some(Command::Check { file, engine }) => check(file, engine),
        Some(Command::Config { what }) => {
            print_line(&if what == "example" { config::example() } else { config::reference() });
            ExitCode::SUCCESS
        }
        Some(Command::Genconfig { output }) => generate(output.as_deref()),
        Some(Command::Import { server, files }) => import(server, &files),
        Some(Command::Schema) => {
            print_line(&config::schema());
            ExitCode::SUCCESS
        }
        Some(Command::Upgrade { config }) => upgrade(config),
        Some(Command::Doctor { restrictions, io, config }) => {
            doctor(restrictions, io, config.as_deref())
        }
        Some(Command::Completions { shell }) => print_completions(shell),
        Some(Command::Man) => print_manual(),
    }
}

fn print_completions(shell: Shell) -> ExitCode {
    // Generated into memory, because the generator panics if the output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "polycast", &mut script);
    print_line(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

fn print_manual() -> ExitCode {
    let mut page = Vec::new();
    // The list of optional parts below the version is for `--version`.
    let command = Cli::command().version(env!("CARGO_PKG_VERSION"));
    match clap_mangen::Man::new(command).render(&mut page) {
        Ok(()) => {
            print_line(&String::from_utf8_lossy(&page));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

/// The version of the server and its optional parts, for `--version`.
fn version() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("{}\n{}", env!("CARGO_PKG_VERSION"), parts::listed()));
    &TEXT
}

fn serve(arguments: Serve) -> ExitCode {
    let input = match arguments.compat {
        Some(server) => ConfigInput::Foreign(server),
        None => ConfigInput::of(arguments.config.clone()),
    };
    let overrides = arguments.overrides();
    let loaded = input.load(&Environment::of_process());
    let config = match loaded.and_then(|config| config.with(overrides.clone())) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    if let Err(error) = server::give_up_new_privileges(&config) {
        return fail(&error, 1);
    }
    let _flush = log::start(&config.log, &config.metrics.namespace);
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if config.is_demo {
        tracing::warn!("no configuration: serving the demo application, whose secret is public");
    } else {
        for warning in config.risks(input.folder()) {
            tracing::warn!("{warning}");
        }
    }
    let is_read = !config.is_demo;
    let source = is_read.then(|| server::ConfigSource::new(input, overrides, &config));
    match server::run(config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

fn check(file: Option<PathBuf>, engine: bool) -> ExitCode {
    let input = ConfigInput::of(file);
    match input.load(&Environment::of_process()) {
        Ok(config) => {
            for warning in config.warnings.iter().chain(&config.risks(input.folder())) {
                let _ = writeln!(std::io::stderr(), "polycast: warning: {warning}");
            }
            print_line(&format!("{}: ok: {}", input.name(), summary(&config)));
            if engine { examine_engine(&config) } else { ExitCode::SUCCESS }
        }
        Err(error) => fail(&error, EXIT_USAGE),
    }
}

/// The time beyond `upgrade_timeout_s` in which an upgrade succeeds or fails: the hand-over itself.
const HAND_OVER: Duration = Duration::from_secs(15);

fn upgrade(file: Option<PathBuf>) -> ExitCode {
    let input = ConfigInput::of(file);
    let config = match input.load(&Environment::of_process()) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    if config.pid_file.is_empty() {
        let text = "has no pid_file; send SIGUSR2 to the server instead";
        return fail(&format!("{}: {text}", input.name()), EXIT_USAGE);
    }
    let limit = Duration::from_secs(config.upgrade_timeout_s) + HAND_OVER;
    match server::request_upgrade(Path::new(&config.pid_file), limit) {
        Ok(text) => {
            print_line(&text);
            ExitCode::SUCCESS
        }
        Err(text) => fail(&text, 1),
    }
}

fn import(server: ForeignServer, files: &[PathBuf]) -> ExitCode {
    match config::import(server, files, &Environment::of_process()) {
        Ok(imported) => {
            for note in &imported.notes {
                let _ = writeln!(std::io::stderr(), "polycast: {note}");
            }
            print_line(&imported.toml);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, EXIT_USAGE),
    }
}

/// Writes a new configuration to a file that must not exist, or prints it.
fn generate(output: Option<&Path>) -> ExitCode {
    let text = match config::generate() {
        Ok(text) => text,
        Err(error) => return fail(&error, 1),
    };
    let Some(file) = output else {
        print_line(&text);
        return ExitCode::SUCCESS;
    };
    if FileFormat::of(file) != Some(FileFormat::Toml) {
        let error = format!("{}: expected a file name that ends in .toml", file.display());
        return fail(&error, EXIT_USAGE);
    }
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(file);
    match created.and_then(|mut it| it.write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{} cannot be written: {error}", file.display()), 1),
    }
}

fn doctor(restrictions: bool, io: IoDriver, file: Option<&Path>) -> ExitCode {
    if restrictions {
        let (report, refused) = server::try_restrictions();
        print_line(&report);
        return if refused { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (report, usable) = server::doctor(io);
    print_line(&report);
    if !usable {
        return ExitCode::from(EXIT_NO_IO_URING);
    }
    let Some(file) = file else { return ExitCode::SUCCESS };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    examine_engine(&config)
}

/// Reports whether the engine of the configuration's cluster can be used.
fn examine_engine(config: &Config) -> ExitCode {
    match server::examine_cluster(config) {
        Some((report, usable)) => {
            print_line(&report);
            if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        None => {
            print_line("engine: none, because the configuration has no section `cluster`");
            ExitCode::SUCCESS
        }
    }
}

impl Serve {
    fn overrides(self) -> Overrides {
        Overrides {
            listen: self.listen,
            threads: self.threads,
            no_pin: self.no_pin,
            io: self.io,
            log_level: self.log_level,
            log_format: self.log_format.map(|format| match format.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            }),
        }
    }
}

fn summary(config: &Config) -> String {
    let threads = match config.threads {
        0 => "one thread per core".to_owned(),
        count => counted(count, "thread"),
    };
    format!(
        "{}, {}, {}, {threads}",
        counted(config.listeners.len(), "listener"),
        counted(config.apps.len(), "app"),
        counted(config.routes.len(), "route"),
    )
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints help and version to standard output, and any error as one line to standard error.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let message_text = text.split("\nUsage:").next().unwrap_or_default();
    let message_text = message_text.split("\nFor more information").next().unwrap_or_default();
    let message_text = message_text.strip_prefix("error: ").unwrap_or(message_text);
    let words =
        message_text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" tip:", "; tip:");
    fail(&format!("{words}; see `polycast --help`"), EXIT_USAGE)
}

/// Prints `text` to standard output. Unlike `println!` it does not panic when the output is closed
/// or full.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "polycast: {error}");
    ExitCode::from(code)
}
