//! The configuration section of the Zilliqa WebSocket Server dialect.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::size;
use super::text::check_token;
use super::zilliqa_node::{self, ZilliqaNode};
use crate::limits::WS_CONTROL_BYTES;
use crate::settings::error::{Error, Problem};
use crate::settings::range::{DAY_S, GIB, KeyRange, at_most};
use crate::settings::secret::Secret;
use crate::settings::section::{ConfigType, Section, section, words};

words!(ZilliqaWire, ZilliqaErrors, ZilliqaPoll);

section! {
    /// The Zilliqa WebSocket Server dialect. It is served where a route has the endpoint "zilliqa";
    /// without such a route this section has no effect.
    pub struct Zilliqa {
        /// Format of notifications: "deployed" is that of the server that was in service, for which
        /// existing clients are written; "documented" is what the protocol's documentation
        /// describes.
        pub wire: ZilliqaWire = ZilliqaWire::default();
        /// Format of errors: "object" as documented, or the bare "text" that the server in service
        /// sent.
        pub error_format: ZilliqaErrors = ZilliqaErrors::default();
        /// Accounts whose events can be subscribed to: "any"; "node", which is those that a node of
        /// node.urls reports as contracts; or a list of addresses such as
        /// ["0x2ce491a0fd9e318b39172258101b7c836da7449b"].
        pub contracts: Contracts = Contracts::default();
        /// Whether a client without a block subscription gets no notification for an epoch that has
        /// nothing for it. wire = "documented" implies true, whatever this key is.
        pub suppress_empty: bool = false;
        /// Maximum size of one message from a client, within the server's limits.message_bytes.
        #[serde(deserialize_with = "size::wide")]
        pub message_bytes: u64 = 64 * 1024, bytes(WS_CONTROL_BYTES as u64..=GIB);
        /// Maximum number of addresses that one connection may name for events, and the same for
        /// transactions.
        pub addresses_per_connection: usize = 10_000, count(1..=1 << 20);
        /// Maximum number of addresses that all connections of one core may name together, about
        /// 100 bytes each; identical lists count once from the next epoch on. A query beyond it is
        /// refused.
        pub addresses_per_core: usize = 2_000_000, count(1..=GIB);
        /// Maximum payload of one frame of a notification; a longer notification is fragmented.
        #[serde(deserialize_with = "size::memory")]
        pub fragment_bytes: usize = 512 * 1024, bytes(1024..=GIB);
        /// Maximum size of the notifications that wait to be written to one connection. A
        /// notification that does not fit is dropped.
        #[serde(deserialize_with = "size::memory")]
        pub queue_bytes: usize = 16 * 1024 * 1024, bytes(65_536..=GIB);
        /// Number of consecutive notifications that may be dropped; one more closes the connection.
        pub dropped_in_a_row: u16 = 8, count(0..=60_000);
        /// Number of the last epochs that are kept for clients that were away; see
        /// src/dialect/zilliqa/README.md. While clients that want events or transactions may come
        /// back, these are fetched from a node although no client is subscribed. 0 keeps none.
        pub history: usize = 20, count(0..=1000);
        /// Estimated memory of these epochs, which all cores share; beyond it the oldest are
        /// removed.
        #[serde(deserialize_with = "size::memory")]
        pub history_bytes: usize = 64 * 1024 * 1024, bytes(1024 * 1024..=GIB);
        /// Silence after which the server sends a ping to a client.
        pub ping_after_s: u64 = 30, seconds(1..=DAY_S);
        /// Silence after which a connection is closed. Seconds, more than ping_after_s, at most
        /// 86401.
        pub idle_timeout_s: u64 = 60;
        /// The path to which epochs are posted; a route must lead it to the endpoint "zilliqa", and
        /// limits.http_body_bytes must be large enough for an epoch.
        pub publish_path: String = "/epochs".to_owned();
        /// The bearer token that allows posting epochs. At least 16 characters; empty disables
        /// posting.
        pub publish_token: Secret = Secret::new("");
        /// Which nodes of a cluster (section `cluster`) fetch epochs: the "leader", which is one of
        /// the nodes that live, or "each". All nodes publish the same epochs, each once. Without a
        /// cluster this key has no effect.
        pub poll: ZilliqaPoll = ZilliqaPoll::default();
        /// The nodes from which epochs are fetched.
        pub node: ZilliqaNode = ZilliqaNode::default();
    }
}

/// The format of notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZilliqaWire {
    /// The format of the server that was in service, for which existing clients are written.
    #[default]
    Deployed,
    /// The format that the protocol's documentation describes.
    Documented,
}

/// The format of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZilliqaErrors {
    /// The object that the protocol's documentation describes.
    #[default]
    Object,
    /// The bare text that the server in service sent.
    Text,
}

/// Which nodes of a cluster fetch epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZilliqaPoll {
    /// One node, and another one when it has ended.
    #[default]
    Leader,
    /// Every node.
    Each,
}

/// The accounts whose events can be subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Contracts {
    /// Every account, whether it is a contract or not.
    #[default]
    Any,
    /// Accounts that a node reports as contracts.
    Node,
    /// These addresses, in ascending order.
    List(Vec<[u8; 20]>),
}

impl ConfigType for Contracts {
    fn kind() -> String {
        "any, node, or list of text".to_owned()
    }

    fn toml(&self) -> Option<String> {
        let text = |address: &[u8; 20]| {
            let digits: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\"0x{digits}\"")
        };
        Some(match self {
            Contracts::Any => "\"any\"".to_owned(),
            Contracts::Node => "\"node\"".to_owned(),
            Contracts::List(list) => {
                format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(", "))
            }
        })
    }
}

impl<'de> Deserialize<'de> for Contracts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Contracts, D::Error> {
        deserializer.deserialize_any(ContractsVisitor)
    }
}

struct ContractsVisitor;

impl<'de> Visitor<'de> for ContractsVisitor {
    type Value = Contracts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\"any\", \"node\", or a list of addresses, each `0x` and 40 hexadecimal digits",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Contracts, E> {
        match text {
            "any" => Ok(Contracts::Any),
            "node" => Ok(Contracts::Node),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Contracts, A::Error> {
        let mut list = Vec::new();
        while let Some(text) = entries.next_element::<String>()? {
            let address = address(&text);
            let invalid = || de::Error::invalid_value(de::Unexpected::Str(&text), &self);
            list.push(address.ok_or_else(invalid)?);
        }
        list.sort_unstable();
        Ok(Contracts::List(list))
    }
}

fn address(text: &str) -> Option<[u8; 20]> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut address = [0; 20];
    if digits.len() != 2 * address.len() {
        return None;
    }
    for (byte, pair) in address.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(address)
}

/// Checks what types cannot express; the keys in errors are relative to the section. `leads_here`
/// says whether the first route for a path has the endpoint `zilliqa`.
pub(super) fn check(
    section: &Zilliqa,
    server_message_bytes: u64,
    leads_here: &dyn Fn(&str) -> bool,
) -> Result<(), Error> {
    zilliqa_node::check(&section.node).map_err(|error| error.under("node"))?;
    check_token("publish_token", &section.publish_token)?;
    section.check_ranges()?;
    let idle = KeyRange::seconds(section.ping_after_s + 1..=DAY_S + 1);
    idle.check("idle_timeout_s", section.idle_timeout_s)?;
    // The default is not an error if it exceeds `limits.message_bytes`, which then applies.
    if section.message_bytes != Zilliqa::default().message_bytes {
        let (found, server) = (section.message_bytes, server_message_bytes);
        at_most("message_bytes", found, "the server's limits.message_bytes", server)?;
    }
    if section.contracts == Contracts::Node && section.node.urls.is_empty() {
        let accepted = "\"any\", a list of addresses, or \"node\" with at least one URL in \
                        node.urls";
        let found = "node".to_owned();
        return Err(Error::keyed("contracts", Problem::Shape { found, accepted }));
    }
    check_publishing(section, leads_here)
}

fn check_publishing(section: &Zilliqa, leads_here: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let path = section.publish_path.as_str();
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    let shape = |accepted| {
        let found = path.to_owned();
        Err(Error::keyed("publish_path", Problem::Shape { found, accepted }))
    };
    if !path.starts_with('/') || !path.bytes().all(plain) {
        return shape("a path that begins with `/`");
    }
    if section.publish_token.expose().is_empty() {
        return Ok(());
    }
    match leads_here(path) {
        true => Ok(()),
        false => shape("a path for which a route has the endpoint `zilliqa`"),
    }
}
