//! The environment variables of a process, as one value that tests can make.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Environment variables: those of the process, or those of a test.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Environment {
        std::env::vars_os().collect()
    }

    /// The value of a variable, if it is set and is UTF-8.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(OsStr::new(name))?.to_str().map(str::to_owned)
    }

    /// The variables whose names begin with `prefix`, in order of their names, each with the rest
    /// of its name. A name that is not UTF-8 has replacement characters.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, &OsStr)> {
        self.0.iter().filter_map(move |(name, value)| {
            let name = name.to_string_lossy();
            Some((name.strip_prefix(prefix)?.to_owned(), value.as_os_str()))
        })
    }
}

impl<Name: Into<OsString>, Value: Into<OsString>> FromIterator<(Name, Value)> for Environment {
    fn from_iter<I: IntoIterator<Item = (Name, Value)>>(variables: I) -> Environment {
        let variable = |(name, value): (Name, Value)| (name.into(), value.into());
        Environment(variables.into_iter().map(variable).collect())
    }
}

/// Shows the names only, because values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
