//! The privileges that the process drops once it listens, so that an attacker who takes it over
//! gains little.

use serde::Deserialize;

/// The privileges that the process drops once it listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Process {
    /// Whether programs that the process starts cannot gain privileges (`no_new_privs`). Default:
    /// true.
    pub no_new_privs: bool,
    /// Whether each io_uring instance accepts only the operations that a reactor needs. Default:
    /// true.
    pub ring_restrictions: bool,
    /// The user to switch to once the process listens; empty (default) keeps the user. Requires a
    /// start as root.
    pub user: String,
    /// Whether the process drops its capabilities once it listens. A switch to another user drops
    /// them anyway. Default: false.
    pub drop_capabilities: bool,
    /// Whether the process may open only the files that it needs (Landlock). Default: false.
    pub landlock: bool,
    /// Further folders and files that stay readable under Landlock.
    pub readable: Vec<String>,
    /// Whether system calls that the server does not need are refused (seccomp). Default: false.
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
