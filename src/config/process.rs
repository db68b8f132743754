//! What the process gives up once it listens, so that somebody who takes it over gets little.

use serde::Deserialize;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Process {
    /// Whether programs that it starts can have no more rights than it has (`no_new_privs`).
    pub no_new_privs: bool,
    /// Whether each ring takes the operations that a reactor needs and no others.
    pub ring_restrictions: bool,
    /// The user to go on as, once it listens; empty: the same. Needs to be started as root.
    pub user: String,
    /// Whether it gives its capabilities up, once it listens. Another user has none anyway.
    pub drop_capabilities: bool,
    /// Whether it can open only the files that it has business with (Landlock).
    pub landlock: bool,
    /// Further folders, and files, that Landlock leaves readable.
    pub readable: Vec<String>,
    /// Whether system calls that no server needs are refused (seccomp).
    pub seccomp: bool,
}

impl Default for Process {
    fn default() -> Process {
        Process {
            no_new_privs: true,
            ring_restrictions: true,
            user: String::new(),
            drop_capabilities: false,
            landlock: false,
            readable: Vec::new(),
            seccomp: false,
        }
    }
}
