//! The configuration section of the Zilliqa WebSocket Server dialect.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::error::{Error, Problem};
use super::secret::Secret;
use super::size;
use super::text::check_token;
use super::zilliqa_node::{self, ZilliqaNode};
use crate::limits::WS_CONTROL_BYTES;

/// The Zilliqa dialect, served where a route has the endpoint `zilliqa`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Zilliqa {
    /// The format of notifications. Default: deployed.
    pub wire: ZilliqaWire,
    /// The format of errors. Default: object.
    pub error_format: ZilliqaErrors,
    /// The accounts whose events can be subscribed to. Default: any.
    pub contracts: Contracts,
    /// Whether a client without a block subscription gets no notification for an epoch that has
    /// nothing for it. Default: false; `wire = "documented"` implies it.
    pub suppress_empty: bool,
    /// Maximum size of one message from a client in bytes. 125 to 1 GiB, default 64 KiB.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Maximum number of addresses that one connection may name in each of its two lists (events,
    /// transactions). 1 to 1048576, default 10000.
    pub addresses_per_connection: usize,
    /// Maximum number of addresses that all connections of one core may name together; identical
    /// lists count once. 1 to 1073741824, default 2000000.
    pub addresses_per_core: usize,
    /// Maximum payload of one frame of a notification in bytes; a longer notification is
    /// fragmented. 1 KiB to 1 GiB, default 512 KiB.
    #[serde(deserialize_with = "size::memory")]
    pub fragment_bytes: usize,
    /// Maximum size in bytes of the notifications that wait to be written to one connection; one
    /// that does not fit is dropped. 64 KiB to 1 GiB, default 16 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub queue_bytes: usize,
    /// Number of consecutive notifications that may be dropped before the connection is closed. 0
    /// to 60000, default 8.
    pub dropped_in_a_row: u16,
    /// Silence in seconds after which the server sends a ping to a client. 1 to 86400, default 30.
    pub ping_after_s: u64,
    /// Silence in seconds after which a connection is closed; more than `ping_after_s`, at most
    /// 86401. Default: 60.
    pub idle_timeout_s: u64,
    /// The path to which epochs are posted. Default: `/epochs`.
    pub publish_path: String,
    /// The bearer token for posting epochs; at least 16 characters. Empty (default): posting is
    /// disabled.
    pub publish_token: Secret,
    /// The nodes from which epochs are fetched.
    pub node: ZilliqaNode,
}

impl Default for Zilliqa {
    fn default() -> Zilliqa {
        Zilliqa {
            wire: ZilliqaWire::default(),
            error_format: ZilliqaErrors::default(),
            contracts: Contracts::default(),
            suppress_empty: false,
            message_bytes: 64 * 1024,
            addresses_per_connection: 10_000,
            addresses_per_core: 2_000_000,
            fragment_bytes: 512 * 1024,
            queue_bytes: 16 * 1024 * 1024,
            dropped_in_a_row: 8,
            ping_after_s: 30,
            idle_timeout_s: 60,
            publish_path: "/epochs".to_owned(),
            publish_token: Secret::new(""),
            node: ZilliqaNode::default(),
        }
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
pub(super) fn check(section: &Zilliqa, leads_here: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    zilliqa_node::check(&section.node).map_err(|error| error.under("node"))?;
    check_token("publish_token", &section.publish_token)?;
    const GIB: u64 = 1 << 30;
    let control = WS_CONTROL_BYTES as u64;
    let fragment = section.fragment_bytes as u64;
    for (key, found, min, max, unit) in [
        ("message_bytes", section.message_bytes, control, GIB, " bytes"),
        ("addresses_per_connection", section.addresses_per_connection as u64, 1, 1 << 20, ""),
        ("addresses_per_core", section.addresses_per_core as u64, 1, GIB, ""),
        ("fragment_bytes", fragment, 1024, GIB, " bytes"),
        ("queue_bytes", section.queue_bytes as u64, 65_536, GIB, " bytes"),
        ("dropped_in_a_row", section.dropped_in_a_row.into(), 0, 60_000, ""),
        ("ping_after_s", section.ping_after_s, 1, 86_400, " seconds"),
        ("idle_timeout_s", section.idle_timeout_s, section.ping_after_s + 1, 86_401, " seconds"),
    ] {
        if !(min..=max).contains(&found) {
            return Err(Error::keyed(key, Problem::Range { found, min, max, unit }));
        }
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
