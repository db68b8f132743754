//! The entries of the dialect table as data.
//!
//! What needs a connection or its context is reached through the trait
//! [`Dialect`](super::Dialect); what is here can be looked up without either.

use super::webhooks::WebhookFormat;
use crate::config::{AppDialect, EndpointKind};

/// One entry of the dialect table.
#[derive(Debug)]
pub struct DialectEntry {
    /// The value of `dialect` or `endpoint` in the configuration.
    pub name: &'static str,
    /// The dialect in one sentence.
    pub about: &'static str,
    /// The section of the configuration that has the dialect's settings, if there is one.
    pub section: Option<&'static str>,
    /// Who chooses the dialect.
    pub chosen_by: ChosenBy,
}

/// Who chooses a dialect, and what depends on that.
#[derive(Debug)]
pub enum ChosenBy {
    /// Applications, by `dialect`.
    Applications {
        /// The beginnings of WebSocket paths that the dialect owns besides `/app/`. An
        /// application's key follows.
        own_sockets: &'static [&'static str],
        /// Whether a path of the HTTP API may name an application by its key, too.
        api_by_key: bool,
        /// The format of webhooks, if the dialect has them.
        webhooks: Option<&'static WebhookFormat>,
    },
    /// Routes, by `endpoint`.
    Routes {
        /// The application number of the dialect's channels; no configured application has it.
        app: u32,
    },
}

/// Defines the names of the dialects and their entries by the table.
macro_rules! entries {
    (
        applications { $(
            $(#[$app_cfg:meta])* $App:ident in $app_folder:ident {
                name: $app_name:tt,
                about: $app_about:tt,
                section: $app_section:expr,
                own_sockets: $own_sockets:expr,
                api_by_key: $api_by_key:expr,
                webhooks: $webhooks:expr,
            }
        )* }
        routes { $(
            $(#[$cfg:meta])* $Name:ident in $folder:ident {
                name: $name:tt,
                about: $about:tt,
                section: $section:expr,
                has_api: $has_api:tt,
                part: $part:expr,
            }
        )* }
    ) => {
        /// Names one dialect of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum DialectKind {
            $(#[doc = $app_about] $(#[$app_cfg])* $App,)*
            $(#[doc = $about] $(#[$cfg])* $Name,)*
        }

        /// The entries, in the order of [`DialectKind`].
        static ENTRIES: &[DialectEntry] = &[
            $(
                $(#[$app_cfg])*
                DialectEntry {
                    name: $app_name,
                    about: $app_about,
                    section: $app_section,
                    chosen_by: ChosenBy::Applications {
                        own_sockets: $own_sockets,
                        api_by_key: $api_by_key,
                        webhooks: $webhooks,
                    },
                },
            )*
            $(
                $(#[$cfg])*
                DialectEntry {
                    name: $name,
                    about: $about,
                    section: $section,
                    chosen_by: ChosenBy::Routes { app: crate::dialect::$folder::APP },
                },
            )*
        ];

        impl DialectKind {
            /// All dialects.
            pub(super) const ALL: &[DialectKind] = &[
                $($(#[$app_cfg])* DialectKind::$App,)*
                $($(#[$cfg])* DialectKind::$Name,)*
            ];

            /// The dialect that a route has chosen; `None` if its endpoint is not a dialect.
            pub(super) fn of_route(endpoint: EndpointKind) -> Option<DialectKind> {
                match endpoint {
                    $($(#[$cfg])* EndpointKind::$Name => Some(DialectKind::$Name),)*
                    _ => None,
                }
            }

            /// The dialect whose channels have this reserved application number.
            pub(super) fn of_reserved(app: u32) -> Option<DialectKind> {
                match app {
                    $(
                        $(#[$cfg])*
                        crate::dialect::$folder::APP => Some(DialectKind::$Name),
                    )*
                    _ => None,
                }
            }
        }

        impl From<AppDialect> for DialectKind {
            fn from(dialect: AppDialect) -> DialectKind {
                match dialect {
                    $($(#[$app_cfg])* AppDialect::$App => DialectKind::$App,)*
                }
            }
        }
    };
}
dialects!(entries);

impl DialectKind {
    /// The entry of the dialect.
    pub(super) fn entry(self) -> &'static DialectEntry {
        &ENTRIES[self as usize]
    }

    /// The beginnings of WebSocket paths that the dialect owns besides `/app/`.
    pub(super) fn own_sockets(self) -> &'static [&'static str] {
        match self.entry().chosen_by {
            ChosenBy::Applications { own_sockets, .. } => own_sockets,
            ChosenBy::Routes { .. } => &[],
        }
    }

    /// Whether a path of the HTTP API may name an application of this dialect by its key.
    pub(super) fn has_api_by_key(self) -> bool {
        matches!(self.entry().chosen_by, ChosenBy::Applications { api_by_key: true, .. })
    }

    /// The format of webhooks, if the dialect has them.
    pub(super) fn webhooks(self) -> Option<&'static WebhookFormat> {
        match self.entry().chosen_by {
            ChosenBy::Applications { webhooks, .. } => webhooks,
            ChosenBy::Routes { .. } => None,
        }
    }

    /// The reserved application number of a dialect that routes choose.
    pub(super) fn reserved_app(self) -> Option<u32> {
        match self.entry().chosen_by {
            ChosenBy::Applications { .. } => None,
            ChosenBy::Routes { app } => Some(app),
        }
    }
}

/// The entries of all dialects.
pub fn entries() -> impl Iterator<Item = &'static DialectEntry> {
    ENTRIES.iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FileFormat};
    use std::collections::HashSet;

    #[test]
    fn table_names_and_reserved_numbers_are_unique() {
        let names: HashSet<&str> = entries().map(|entry| entry.name).collect();
        assert_eq!(names.len(), DialectKind::ALL.len());
        let reserved = DialectKind::ALL.iter().filter_map(|kind| kind.reserved_app());
        let reserved: HashSet<u32> = reserved.collect();
        let routes = entries().filter(|entry| matches!(entry.chosen_by, ChosenBy::Routes { .. }));
        assert_eq!(reserved.len(), routes.count());
        // Configured applications are numbered from 0.
        assert!(reserved.iter().all(|app| *app > u32::MAX - 1000));
        for kind in DialectKind::ALL {
            let found = kind.reserved_app().and_then(DialectKind::of_reserved);
            assert!(found.is_none_or(|found| found == *kind));
        }
    }

    #[test]
    fn table_sections_are_those_of_the_configuration() {
        let parse = |text: &str| Config::parse_with(text, FileFormat::Toml, "test", &|_| None);
        let demo = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"0123456789abcdef\"\n";
        for section in entries().filter_map(|entry| entry.section) {
            let parsed = parse(&format!("{demo}[{section}]\n"));
            assert!(parsed.is_ok(), "{section}: {:?}", parsed.err());
        }
        assert!(parse(&format!("{demo}[nothing]\n")).is_err());
    }
}
