//! The Zilliqa WebSocket Server.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::error::{Error, Problem};
use super::schema::{EndpointKind, Route, Secret};
use super::size;
use super::zilliqa_node::ZilliqaNode;
use crate::limits::WS_CONTROL_BYTES;

/// The Zilliqa dialect, served where a route has the endpoint `zilliqa`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Zilliqa {
    /// Which server's notifications are sent.
    pub wire: ZilliqaWire,
    /// What an error looks like.
    pub error_format: ZilliqaErrors,
    /// Which accounts have events.
    pub contracts: Contracts,
    /// Whether an epoch without anything for a client that wants no blocks is not told to it.
    pub suppress_empty: bool,
    /// Bytes of one message from a client.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Addresses that one connection may name in each of its two lists.
    pub addresses_per_connection: usize,
    /// Addresses that all connections of one core may name together; equal lists count once.
    pub addresses_per_core: usize,
    /// Payload bytes of one frame of a notification; longer ones are sent in several.
    #[serde(deserialize_with = "size::memory")]
    pub fragment_bytes: usize,
    /// Bytes of notifications that may wait to be written to one connection; one that does not
    /// fit is dropped.
    #[serde(deserialize_with = "size::memory")]
    pub queue_bytes: usize,
    /// Notifications that may be dropped in a row before the connection is closed.
    pub dropped_in_a_row: u16,
    /// Silence after which a client is asked for a sign of life, in seconds.
    pub ping_after_s: u64,
    /// Silence after which it is given up, in seconds.
    pub idle_timeout_s: u64,
    /// The path to which epochs are posted.
    pub publish_path: String,
    /// Who has it may post epochs. Empty: nobody may.
    pub publish_token: Secret,
    /// The nodes that epochs are asked of.
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

/// Which server's notifications are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZilliqaWire {
    /// Those of the server that was in service, which its clients are written for.
    #[default]
    Deployed,
    /// Those that the protocol's page describes.
    Documented,
}

/// What an error looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZilliqaErrors {
    /// The object of the protocol's page.
    #[default]
    Object,
    /// The bare words, as the server in service sent them.
    Text,
}

/// Which accounts have events that can be subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Contracts {
    /// Every account, whether it is a contract or not.
    #[default]
    Any,
    /// Those that a node says are contracts.
    Node,
    /// These, in ascending order.
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
        f.write_str("\"any\", \"node\", or a list of addresses of `0x` and 40 hexadecimal digits")
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

/// Checks what types cannot say; the keys in errors begin below the section.
pub(super) fn check(section: &Zilliqa, routes: &[Route]) -> Result<(), Error> {
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
        let accepted = "\"any\", a list of addresses, or \"node\" with one in node.urls";
        let found = "node".to_owned();
        return Err(Error::keyed("contracts", Problem::Shape { found, accepted }));
    }
    check_publishing(section, routes)
}

fn check_publishing(section: &Zilliqa, routes: &[Route]) -> Result<(), Error> {
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
    let route = routes.iter().find(|route| route.matches(path));
    match route.map(|route| route.endpoint) {
        Some(EndpointKind::Zilliqa) => Ok(()),
        _ => shape("a path that a route leads to the endpoint `zilliqa`"),
    }
}
