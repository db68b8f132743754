//! The privileges that the process drops once it listens, so that an attacker who takes it over
//! gains little.

use crate::settings::section::section;

section! {
    /// Privileges that the process drops once it listens, so that an attacker who takes it over
    /// gains little. Changes take effect with a restart. `polycast doctor --restrictions` tests all
    /// of them.
    pub struct Process {
        /// Whether programs that the process starts cannot gain privileges (no_new_privs).
        pub no_new_privs: bool = true;
        /// Whether the io_uring instance of each reactor refuses the operations that reactors do
        /// not need.
        pub ring_restrictions: bool = true;
        /// The user to switch to; requires a start as root. Empty keeps the user. Files that are
        /// read again later (certificates, this file) must be readable for that user.
        pub user: String = String::new();
        /// Whether the process drops its capabilities; a switch to another user drops them anyway.
        pub drop_capabilities: bool = false;
        /// Whether the process may open only files below the folders of this file, of certificates,
        /// of pid_file and of zilliqa.node.state_file, files that libraries need below /etc, /usr,
        /// /lib, /proc and /sys, and those in `readable` (Landlock). It then also cannot listen on
        /// further TCP ports. On a kernel without Landlock (before 5.13) a warning is logged.
        pub landlock: bool = false;
        /// Further folders and files that stay readable under Landlock, such as those of schemas
        /// and of `ca_file`.
        pub readable: Vec<String> = Vec::new();
        /// Whether system calls that the server does not need fail with EPERM (seccomp): other
        /// programs, other processes, mounts, kernel modules, clocks, keys. The server cannot be
        /// upgraded then.
        pub seccomp: bool = false;
    }
}
