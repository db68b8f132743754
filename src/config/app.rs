//! The choices and key pairs of an application's configuration.

use serde::Deserialize;

use super::schema::{AppConfig, Secret};

impl AppConfig {
    /// The application's own activity timeout, or that of its dialect's section if it has none, in
    /// seconds.
    pub fn activity_s(&self, of_dialect: u64) -> u64 {
        match self.activity_timeout_s {
            0 => of_dialect,
            own => own,
        }
    }

    /// The application's pairs of key and secret, the primary one first.
    pub fn key_pairs(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let further = self.keys.iter().map(|pair| (pair.key.as_str(), &pair.secret));
        std::iter::once((self.key.as_str(), &self.secret)).chain(further)
    }
}

/// A key and the secret that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct KeyPair {
    /// The public part. ASCII letters, digits, `_`, `.` and `-`.
    pub key: String,
    /// The secret part, which signs.
    pub secret: Secret,
}

/// Defines [`AppDialect`] by the table of dialects.
macro_rules! app_dialects {
    (
        applications { $(
            $(#[$cfg:meta])* $Name:ident in $folder:ident {
                name: $name:tt, about: $about:tt, $($rest:tt)*
            }
        )* }
        routes { $($routes:tt)* }
    ) => {
        /// The protocol that an application's clients use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        pub enum AppDialect {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $(#[$cfg])*
                $Name,
            )*
        }

        impl AppDialect {
            /// All of them; the first is the default.
            pub const ALL: &[AppDialect] = &[$($(#[$cfg])* AppDialect::$Name),*];
        }
    };
}
dialects!(app_dialects);

impl Default for AppDialect {
    fn default() -> AppDialect {
        AppDialect::ALL[0]
    }
}

/// The reply to a subscription that the connection already has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicateSubscribe {
    /// An error; the subscription stays.
    #[default]
    Error,
    /// The same acknowledgement as for the first subscription.
    Ack,
}

/// What happens to a connection that subscribes to a channel with a wrong signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadSignature {
    /// The subscription is refused, and the connection stays open.
    #[default]
    Refuse,
    /// The subscription is refused, and the connection is closed with 4009.
    Close,
}
