//! The dialect table: one entry for each dialect, and the only place outside of a dialect's folder
//! that names it, except its `mod` line.
//!
//! The table is a macro that hands its entries to another macro, because `config` makes the names
//! that a configuration may choose from it, and `dialect` everything else. It is declared before
//! all other modules, and it depends on none: its entries are words until a module expands them.
//!
//! Each entry is `Name in folder`, and the folder has a type `Connection` that implements the trait
//! `Dialect`: that is how a connection is opened. The block says who chooses the dialect:
//! applications by `dialect`, routes by `endpoint`. The first of the applications' dialects is the
//! default.
//!
//! | key | meaning |
//! | --- | --- |
//! | `name` | the value of `dialect` or `endpoint` in the configuration |
//! | `about` | the dialect in one sentence |
//! | `section` | the section of the configuration that has its settings, if there is one |
//! | `own_sockets` | WebSocket paths that it owns besides `/app/{key}`, without the key |
//! | `api_by_key` | whether a path of the HTTP API may name an application by its key, too |
//! | `webhooks` | how channel events are sent to the webhooks of its applications, if they are |
//! | `has_api` | whether it answers HTTP requests; a route's dialect owns the paths of its routes |
//! | `part` | the optional part that the dialect is, if it is one |
//!
//! An optional dialect has a `cfg` attribute. It applies to everything but the names that the
//! configuration knows: a configuration that uses a dialect that is not compiled in is refused.

/// Calls the macro `$expand` with the entries of the table.
macro_rules! dialects {
    ($expand:ident) => {
        $expand! {
            applications {
                Pusher in pusher {
                    name: "pusher",
                    about: "Pusher Channels, protocol 7.",
                    section: Some("pusher"),
                    own_sockets: &[],
                    api_by_key: true,
                    webhooks: Some(&crate::dialect::pusher::hooks::FORMAT),
                }
                Broadcastt in broadcastt {
                    name: "broadcastt",
                    about: "Broadcastt.",
                    section: Some("broadcastt"),
                    own_sockets: &["/apps/"],
                    api_by_key: false,
                    webhooks: None,
                }
                #[cfg(test)]
                Parrot in parrot {
                    name: "parrot",
                    about: "The smallest dialect; only tests compile it.",
                    section: None,
                    own_sockets: &["/parrot/"],
                    api_by_key: true,
                    webhooks: Some(&crate::dialect::parrot::FORMAT),
                }
            }
            routes {
                Reflect in reflect {
                    name: "reflect",
                    about: "Groups: each message is sent to all members of the sender's group.",
                    section: None,
                    has_api: false,
                    part: None,
                }
                Channel in plain {
                    name: "channel",
                    about: "Plain WebSockets that receive the data of a linked channel's events.",
                    section: None,
                    has_api: false,
                    part: None,
                }
                #[cfg(feature = "zilliqa")]
                Zilliqa in zilliqa {
                    name: "zilliqa",
                    about: "The Zilliqa WebSocket Server protocol.",
                    section: Some("zilliqa"),
                    has_api: true,
                    part: Some(crate::parts::OptionalPart::Zilliqa),
                }
                #[cfg(feature = "zenith")]
                Zenith in zenith {
                    name: "zenith",
                    about: "Zenith: subscriptions with a picture, calls, and back ends.",
                    section: Some("zenith"),
                    has_api: true,
                    part: Some(crate::parts::OptionalPart::Zenith),
                }
            }
        }
    };
}
