//! The optional parts of the server. Each is a cargo feature of the same name, and on by default.
//!
//! A part is left out at the boundary of its modules: the attribute `path` replaces the folder of
//! the part with a file `absent.rs`, which has the same items and fails with [`AbsentPart`]. What
//! uses the part does not change. The configuration has all keys in every build; one that uses an
//! absent part is refused.

use std::fmt;

/// An optional part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionalPart {
    /// Certificates from a certificate authority by ACME.
    Acme,
    /// Clusters of several nodes on NATS JetStream.
    ClusterNats,
    /// Clusters of several nodes on Redis or Valkey.
    ClusterRedis,
    /// Configuration files of Zilla.
    ImportZilla,
    /// Models with a schema (JSON Schema, Avro, Protocol Buffers), catalogs and schema registries.
    Models,
    /// Certificates and keys in PKCS#12 files.
    Pkcs12,
    /// Configuration files in YAML.
    Yaml,
    /// The Zenith dialect, with BSON and MessagePack.
    Zenith,
    /// The Zilliqa dialect, with the fetching of epochs from nodes.
    Zilliqa,
}

impl OptionalPart {
    /// All parts, by name.
    pub const ALL: [OptionalPart; 9] = [
        OptionalPart::Acme,
        OptionalPart::ClusterNats,
        OptionalPart::ClusterRedis,
        OptionalPart::ImportZilla,
        OptionalPart::Models,
        OptionalPart::Pkcs12,
        OptionalPart::Yaml,
        OptionalPart::Zenith,
        OptionalPart::Zilliqa,
    ];

    /// The name of the cargo feature.
    pub fn feature(self) -> &'static str {
        self.entry().0
    }

    /// Whether this build has the part.
    pub fn is_compiled(self) -> bool {
        self.entry().1
    }

    fn entry(self) -> (&'static str, bool) {
        match self {
            OptionalPart::Acme => ("acme", cfg!(feature = "acme")),
            OptionalPart::ClusterNats => ("cluster-nats", cfg!(feature = "cluster-nats")),
            OptionalPart::ClusterRedis => ("cluster-redis", cfg!(feature = "cluster-redis")),
            OptionalPart::ImportZilla => ("import-zilla", cfg!(feature = "import-zilla")),
            OptionalPart::Models => ("models", cfg!(feature = "models")),
            OptionalPart::Pkcs12 => ("pkcs12", cfg!(feature = "pkcs12")),
            OptionalPart::Yaml => ("yaml", cfg!(feature = "yaml")),
            OptionalPart::Zenith => ("zenith", cfg!(feature = "zenith")),
            OptionalPart::Zilliqa => ("zilliqa", cfg!(feature = "zilliqa")),
        }
    }
}

/// A part that is needed and that this build does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this needs the feature `{feature}`, which is not compiled into this build of polycast; use a \
     build that has it (see `polycast --version`)",
    feature = .0.feature()
)]
pub struct AbsentPart(pub OptionalPart);

/// The parts that this build has and those that it does not have, in two lines.
pub fn listed() -> impl fmt::Display {
    struct Listed;

    impl fmt::Display for Listed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let names = |is_compiled: bool| {
                let parts =
                    OptionalPart::ALL.iter().filter(|part| part.is_compiled() == is_compiled);
                let names: Vec<&str> = parts.map(|part| part.feature()).collect();
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            };
            write!(f, "features: {}\nnot compiled in: {}", names(true), names(false))
        }
    }

    Listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_listed_once_each() {
        let text = listed().to_string();
        let (compiled, absent) = text.split_once("\nnot compiled in: ").expect("two lines");
        let compiled = compiled.strip_prefix("features: ").expect("the compiled parts");
        for part in OptionalPart::ALL {
            let has = |list: &str| list.split(", ").filter(|it| *it == part.feature()).count();
            let expected = if part.is_compiled() { (1, 0) } else { (0, 1) };
            assert_eq!((has(compiled), has(absent)), expected, "{part:?} in {text}");
        }
        assert_eq!(compiled == "none", OptionalPart::ALL.iter().all(|part| !part.is_compiled()));
    }

    #[test]
    fn parts_are_the_features_of_the_manifest() {
        let manifest: toml::Table = include_str!("../Cargo.toml").parse().expect("TOML");
        let features = manifest["features"].as_table().expect("a table");
        let default: Vec<&str> = features["default"]
            .as_array()
            .expect("a list")
            .iter()
            .flat_map(|it| it.as_str())
            .collect();
        assert_eq!(
            default,
            OptionalPart::ALL.map(OptionalPart::feature),
            "all parts are on by default"
        );
        let named = features.keys().filter(|name| *name != "default");
        assert_eq!(named.collect::<Vec<_>>(), default, "and there is no other feature");
    }
}
