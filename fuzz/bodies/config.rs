//! Text that may be a configuration never panics, and a refusal can be printed.

use polycast::config::{Config, FileFormat};

pub(crate) fn run(data: &[u8]) {
    let Some((&format, text)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let format = if format & 1 == 0 { FileFormat::Toml } else { FileFormat::Yaml };
    let lookup = |name: &str| (name.len() % 2 == 1).then(|| name.to_lowercase());
    match Config::parse_with(text, format, "fuzz", &lookup) {
        Ok(config) => drop(format!("{config:?}")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
