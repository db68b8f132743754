//! The beginnings of the example file and of the page of all keys.

/// The first comment of the example file.
pub(super) const HEADER: &str = "\
polycast: every configuration key, with its default.

Start the server with `polycast --config polycast.toml`; check a file with `polycast check
polycast.toml`. YAML files with the same keys work too (.yaml or .yml).

Every string value may contain ${NAME} or ${NAME:-default}, which is replaced from the
environment, ${file:PATH}, which is replaced by the content of the file without the line break at
its end, and ${credential:NAME}, the same for a credential of systemd; a literal $ is written $$. A
number or boolean may be written as a string, so that it can come from a variable:
threads = \"${THREADS:-0}\". Sizes are integers in bytes, or strings with a unit: B, KiB, MiB, GiB,
KB, MB, GB. Only [[apps]] has no default. File names are relative to the folder of this file.

The environment variable POLYCAST_SECTION__KEY sets a key in place of this file, such as
POLYCAST_LOG__LEVEL or POLYCAST_LISTENERS__0__ADDRESS: see docs/environment.md.

This file is made by `polycast config example`; docs/configuration.md has the same keys as tables.";

/// The beginning of the page `docs/configuration.md`.
pub(super) const PAGE_HEADER: &str = "\
# Configuration

Every key of a configuration file, by section. `polycast.example.toml` has the same keys as a file
that can be edited. Values of keys without a default are examples. The type `size` is an integer in
bytes, or a text with a unit such as `\"64KiB\"`. This page is made by `polycast config reference`.
";
