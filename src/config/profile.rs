//! Profiles: the defaults of an application, by the service whose behaviour it follows.
//!
//! A profile is applied to the document tree before it is read: each key of the profile that the
//! application does not set is inserted at the position of the key `profile`. So keys in the file
//! take precedence, and an error in a value from the profile names the line of `profile`.

use serde::Deserialize;

use super::env::{References, text_of};
use super::tree::{ConfigKey, ConfigValue, Node};

/// The service whose defaults an application uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The defaults of this server.
    #[default]
    Polycast,
    /// Pusher Channels: <https://pusher.com/docs/channels/using_channels/channels/>.
    Pusher,
    /// Vask: <https://vask.dev/docs>.
    Vask,
    /// soketi 1.6: <https://docs.soketi.app>.
    Soketi,
}

/// The value that a profile gives to a key.
#[derive(Clone, Copy)]
enum Setting {
    Number(i128),
    Keyword(&'static str),
    Flag(bool),
    /// A list with one entry.
    List(&'static str),
}
use Setting::{Flag, Keyword, List, Number};

/// The application keys whose defaults differ from those of this server; a dot separates the
/// section `limits` from its keys.
type Settings = &'static [(&'static str, Setting)];

const PUSHER: Settings = &[("limits.channel_name_length", Number(164))];
const VASK: Settings =
    &[("terminate_close_code", Number(4200)), ("bad_signature", Keyword("close"))];
const SOKETI: Settings = &[
    ("activity_timeout_s", Number(30)),
    ("duplicate_subscribe", Keyword("ack")),
    ("error_before_close", Flag(true)),
    ("numeric_user_ids", Flag(true)),
    ("counts_in_reads", Flag(true)),
    ("cors_origins", List("*")),
    ("limits.event_bytes", Number(100 * 1024)),
    ("limits.message_bytes", Number(256 * 1024)),
    ("limits.presence_member_bytes", Number(2048)),
    ("limits.user_id_length", Number(1024)),
    ("limits.client_events_per_s", Number(0)),
    ("limits.cache_ttl_s", Number(3600)),
];

/// Inserts the defaults of each application's profile into its table. Malformed tables and unknown
/// profiles are left for the reader to refuse.
pub(super) fn apply(document: &mut Node, references: &References<'_>) {
    let Some(apps) = entry(document, "apps") else { return };
    let ConfigValue::List(apps) = &mut apps.value else { return };
    for app in apps {
        let ConfigValue::Table(entries) = &app.value else { continue };
        let named = entries.iter().find(|(key, _)| key.name == "profile");
        let Some((key, word)) = named else { continue };
        let position = key.position;
        let settings = match text_of(word, references) {
            Ok(Some(word)) => match word.as_str() {
                "pusher" => PUSHER,
                "vask" => VASK,
                "soketi" => SOKETI,
                _ => continue,
            },
            _ => continue,
        };
        for (path, setting) in settings {
            let value = match setting {
                Number(number) => ConfigValue::Int(*number),
                Keyword(word) => ConfigValue::Text((*word).to_owned()),
                Flag(flag) => ConfigValue::Bool(*flag),
                List(word) => {
                    let value = ConfigValue::Text((*word).to_owned());
                    ConfigValue::List(vec![Node { position, value }])
                }
            };
            set(app, path, Node { position, value });
        }
    }
}

fn entry<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    let ConfigValue::Table(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|(key, _)| key.name == name).map(|(_, entry)| entry)
}

/// Sets the key at `path` to `value` unless it exists, and creates the tables on the way to it.
fn set(node: &mut Node, path: &str, value: Node) {
    let position = value.position;
    // A section without entries is `null` in YAML.
    if let ConfigValue::Null = node.value {
        node.value = ConfigValue::Table(Vec::new());
    }
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let there = entry(node, name).is_some();
    let ConfigValue::Table(entries) = &mut node.value else { return };
    let key = || ConfigKey { position, name: name.to_owned() };
    match (there, rest) {
        (true, "") => {}
        (false, "") => entries.push((key(), value)),
        (_, rest) => {
            if !there {
                entries.push((key(), Node { position, value: ConfigValue::Table(Vec::new()) }));
            }
            if let Some(table) = entry(node, name) {
                set(table, rest, value);
            }
        }
    }
}
