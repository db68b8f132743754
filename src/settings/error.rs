//! Errors of a configuration, with their position.

use crate::parts::AbsentPart;
use std::fmt;

/// A position in a configuration file; line and column count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line of the file.
    pub line: usize,
    /// Column of that line, in characters.
    pub column: usize,
}

/// A configuration that is refused: the file, the line, the key, and what is accepted there.
///
/// It displays as one line, `file:line:column: key: problem`.
#[derive(Debug)]
pub struct Error {
    /// Name of the file or other source of the settings.
    pub source_name: String,
    /// The position in the file, if it is known.
    pub position: Option<Position>,
    /// Path of the key, such as `apps[1].key`; empty for the document as a whole.
    pub key: String,
    /// What is wrong with the key.
    pub problem: Box<Problem>,
}

/// What is wrong with one key of a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The file's extension does not name a known format.
    #[error("expected a file name that ends in .toml, .yaml or .yml")]
    Extension,
    /// The text is not valid TOML or YAML.
    #[error("{0}")]
    Syntax(String),
    /// A key that the schema does not have.
    #[error("unknown key; accepted keys: {}", list(known))]
    UnknownKey {
        /// The keys that are known in that section.
        known: &'static [&'static str],
    },
    /// A required key is missing.
    #[error("the key is missing and has no default")]
    Missing,
    /// A value has the wrong type.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What is accepted.
        expected: String,
        /// The kind of value that was found; never a text itself, which may be a secret.
        found: String,
    },
    /// A word is not one of the accepted ones.
    #[error("`{}` is not accepted; accepted: {}", shortened(found), list(accepted))]
    Keyword {
        /// The word in the file.
        found: String,
        /// The accepted words.
        accepted: &'static [&'static str],
    },
    /// A number is outside its range.
    #[error("{found} is out of range; accepted: {min} to {max}{unit}")]
    Range {
        /// The number in the file.
        found: u64,
        /// The smallest accepted number.
        min: u64,
        /// The largest accepted number.
        max: u64,
        /// The unit, with a space before it, or empty.
        unit: &'static str,
    },
    /// A number is not a power of two, or is outside its range.
    #[error("{found} is not accepted; accepted: powers of two from {min} to {max}")]
    PowerOfTwo {
        /// The number in the file.
        found: u64,
        /// The smallest accepted number.
        min: u64,
        /// The largest accepted number.
        max: u64,
    },
    /// A number exceeds a limit that another key sets.
    #[error("{found} is too large; the maximum is {bound}, which is {max}")]
    Relation {
        /// The number in the file.
        found: u64,
        /// The key, or the part of its value, that limits this number.
        bound: &'static str,
        /// The value of that limit.
        max: u64,
    },
    /// A value must be unique and is already used by another key.
    #[error("`{value}` is already used at {other}; it must be unique")]
    Duplicate {
        /// The value.
        value: String,
        /// Path of the key that already has the value.
        other: String,
    },
    /// A list is empty and needs at least one entry.
    #[error("at least one entry is required")]
    Empty,
    /// A text has the wrong form.
    #[error("`{}` is not accepted; accepted: {accepted}", shortened(found))]
    Shape {
        /// The text in the file.
        found: String,
        /// What is accepted, in words.
        accepted: &'static str,
    },
    /// A secret has the wrong form; its value is not shown.
    #[error("the value (not shown) is not accepted; accepted: {accepted}")]
    Secret {
        /// What is accepted, in words.
        accepted: &'static str,
    },
    /// A value that another key requires is missing, or is set where it has no effect.
    #[error("expected {0}")]
    Needed(&'static str),
    /// The key uses a part that is not compiled into this build.
    #[error("{0}")]
    Absent(AbsentPart),
    /// `${NAME}` names a variable that is not set, and has no default.
    #[error("the environment variable `{0}` is not set; set it, or write ${{{0}:-default}}")]
    Environment(String),
    /// A `$` begins neither `${NAME}` or another reference nor `$$`.
    #[error(
        "`$` must begin ${{NAME}}, ${{NAME:-default}}, ${{file:PATH}} or ${{credential:NAME}}; a \
         literal `$` is written `$$`"
    )]
    Dollar,
    /// `${credential:NAME}` is used without systemd's folder of credentials.
    #[error(
        "the credential `{0}` cannot be read, because `CREDENTIALS_DIRECTORY` is not set; systemd \
         sets it for a service with LoadCredential= or SetCredential="
    )]
    Credentials(String),
    /// A variable sets an entry of a list that has no entry before it.
    #[error("the list has {found} entries before it; entries are numbered from 0 without gaps")]
    IndexGap {
        /// The number of entries that the list has.
        found: usize,
    },
    /// Some of the variables of an application are set, but not all.
    #[error(
        "the variable is not set, but {given} is; set all of POLYCAST_APP_ID, POLYCAST_APP_KEY and \
         POLYCAST_APP_SECRET, or none"
    )]
    HalfAnApp {
        /// The variable that is set.
        given: String,
    },
    /// The value of an environment variable begins like a TOML array or table, but is none.
    #[error("the value is not a TOML array or inline table: {0}")]
    Inline(String),
    /// The demo application would listen on an address that other machines can reach.
    #[error(
        "{0} is not a loopback address; without a configuration, the server accepts only loopback \
         addresses, because it serves the demo application, whose secret is public; write a \
         configuration with your own [[apps]] and use --config FILE, or set POLYCAST_APP_ID, \
         POLYCAST_APP_KEY and POLYCAST_APP_SECRET"
    )]
    DemoAddress(std::net::SocketAddr),
    /// Any other problem that the parser of a value reports.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An error without a key and a position.
    pub fn new(problem: Problem) -> Error {
        Error {
            source_name: String::new(),
            position: None,
            key: String::new(),
            problem: Box::new(problem),
        }
    }

    /// An error at a position of the file.
    pub fn at(problem: Problem, position: Option<Position>) -> Error {
        Error { position, ..Error::new(problem) }
    }

    /// An error of the value of `key`.
    pub fn keyed(key: impl Into<String>, problem: Problem) -> Error {
        Error { key: key.into(), ..Error::new(problem) }
    }

    /// Sets the name of the file.
    pub fn named(self, source_name: &str) -> Error {
        Error { source_name: source_name.to_owned(), ..self }
    }

    /// Prefixes the key with `segment`: `b` under `a` is `a.b`, `[0]` under `a` is `a[0]`.
    pub fn under(mut self, segment: &str) -> Error {
        self.key = match self.key.as_str() {
            "" => segment.to_owned(),
            key if key.starts_with('[') => format!("{segment}{key}"),
            key => format!("{segment}.{key}"),
        };
        self
    }

    /// Sets the position, unless it is already set.
    pub fn or_at(mut self, position: Option<Position>) -> Error {
        self.position = self.position.or(position);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source_name)?;
        if let Some(at) = self.position {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.problem {
            Problem::Read(error) => Some(error),
            _ => None,
        }
    }
}

/// Converts `serde` errors to a [`Problem`]; the readers add the key and the position.
impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::new(Problem::Other(message.to_string()))
    }

    fn invalid_type(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Error {
        Error::new(Problem::Type { expected: plain(expected), found: describe(found) })
    }

    fn invalid_value(
        found: serde::de::Unexpected<'_>,
        expected: &dyn serde::de::Expected,
    ) -> Error {
        use serde::de::Unexpected::{Signed, Unsigned};
        let found = match found {
            Unsigned(number) => number.to_string(),
            Signed(number) => number.to_string(),
            other => describe(other),
        };
        Error::new(Problem::Type { expected: plain(expected), found })
    }

    fn unknown_variant(found: &str, accepted: &'static [&'static str]) -> Error {
        Error::new(Problem::Keyword { found: found.to_owned(), accepted })
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Error {
        Error::keyed(found, Problem::UnknownKey { known })
    }

    fn missing_field(field: &'static str) -> Error {
        Error::keyed(field, Problem::Missing)
    }
}

/// Describes the kind of value that was found. The value of a string is not shown, because it may
/// be a secret.
fn describe(found: serde::de::Unexpected<'_>) -> String {
    use serde::de::Unexpected;
    let words = match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Str(_) | Unexpected::Char(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        Unexpected::Other(words) => words,
        _ => "another kind of value",
    };
    words.to_owned()
}

/// Describes what `serde` expects in the terms of the file format instead of Rust types.
fn plain(expected: &dyn serde::de::Expected) -> String {
    let words = expected.to_string();
    match words.as_str() {
        "a boolean" => "true or false".to_owned(),
        "a string" => "a string, in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "u32" => format!("an integer from 0 to {}", u32::MAX),
        "u64" | "usize" => "an integer, 0 or more".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        _ => words,
    }
}

/// The beginning of a text, so that an error stays one line that can be read.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 200;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn list(words: &[&str]) -> String {
    words.join(", ")
}
