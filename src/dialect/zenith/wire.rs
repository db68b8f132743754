//! The message envelope, decoded and encoded, and the constants of its properties.

use super::peer::ZenithPeer;
use crate::codec::compact;
use crate::codec::value::{self, Envelope, EnvelopeBody, Format, Value};
use crate::dialect::Env;
use crate::hub::ConnId;
use crate::mem::{Frozen, Slot};
use crate::ws::{self, MessageKind, frame};

/// The application number of all channels of this dialect; no configured application has it.
pub const APP: u32 = u32::MAX;

/// Error codes, and the condition that each reports.
pub(super) mod codes {
    /// The topic or the action is unknown or missing.
    pub(crate) const UNKNOWN: &str = "Operation.Unknown";
    /// The client lacks the required scope, or the back end may not serve the controller.
    pub(crate) const AUTHORITY: &str = "Authority";
    /// The request requires data and has none.
    pub(crate) const DATA: &str = "Data";
    /// The data has the wrong shape.
    pub(crate) const DESERIALISE: &str = "Data.Deserialise";
    /// The result of a call without a TransactionID has nowhere to go.
    pub(crate) const NO_RESULT: &str = "Operation.NoResult";
    /// A back end has not answered in time.
    pub(crate) const TIMEOUT: &str = "Operation.Timeout";
    /// The call was cancelled.
    pub(crate) const ABORT: &str = "Operation.Abort";
    /// A back end has reported an error without data, or a call cannot be encoded in its format.
    pub(crate) const FAULT: &str = "Fault";
    /// The log of the cluster has not taken the data, which may be sent again.
    pub(crate) const RETRY: &str = "Retry";
    /// A limit is reached.
    pub(crate) const LIMITED: &str = "Limited";
}

pub(super) const SUB: &str = "Sub";
pub(super) const UNSUB: &str = "Unsub";
pub(super) const PUBLISH: &str = "Publish";
pub(super) const ERROR: &str = "Error";
pub(super) const CANCEL: &str = "Cancel";

/// The controller of a message that names none.
pub(super) const DEFAULT_CONTROLLER: &str = "Zenith";

/// A message from a peer. Unknown members are dropped.
#[derive(Debug, Default)]
pub(super) struct MessageEnvelope {
    pub(super) controller: Box<str>,
    pub(super) topic: Option<Box<str>>,
    pub(super) action: Option<Box<str>>,
    /// A number, kept as the peer has written it.
    pub(super) transaction: Option<Value>,
    pub(super) data: Option<Value>,
    pub(super) confirm: bool,
    /// Properties of back ends' messages: `Retain`, `Error`, `UserID` and `Session`.
    pub(super) retain: Option<Value>,
    pub(super) error: Option<Value>,
    pub(super) user: Option<Value>,
    pub(super) session: Option<Value>,
}

impl MessageEnvelope {
    /// Reads the members of a map and ignores unknown ones.
    ///
    /// # Errors
    /// The value is not a map, or a member has the wrong type: an invalid packet.
    pub(super) fn of(value: Value) -> Result<MessageEnvelope, &'static str> {
        let Value::Map(members) = value else { return Err("a message must be an object") };
        let mut it =
            MessageEnvelope { controller: DEFAULT_CONTROLLER.into(), ..MessageEnvelope::default() };
        for (key, value) in members {
            match (&*key, value) {
                ("Controller", Value::Text(text)) => it.controller = text,
                ("Topic", Value::Text(text)) => it.topic = Some(text),
                ("Action", Value::Text(text)) => it.action = Some(text),
                ("TransactionID", number) if number.is_number() => it.transaction = Some(number),
                ("Confirm", Value::Bool(confirm)) => it.confirm = confirm,
                ("Data", value) => it.data = Some(value),
                ("Retain", value) => it.retain = Some(value),
                ("Error", value) => it.error = Some(value),
                ("UserID", value) => it.user = Some(value),
                ("Session", value) => it.session = Some(value),
                ("Controller", _) => return Err("Controller must be a string"),
                ("Topic", _) => return Err("Topic must be a string"),
                ("Action", _) => return Err("Action must be a string"),
                ("TransactionID", _) => return Err("TransactionID must be a number"),
                ("Confirm", _) => return Err("Confirm must be true or false"),
                _ => {}
            }
        }
        Ok(it)
    }

    /// The topic, or an empty string.
    pub(super) fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or("")
    }

    /// The data, if it is present and not null.
    pub(super) fn some_data(&self) -> Option<&Value> {
        self.data.as_ref().filter(|data| !data.is_null())
    }
}

/// A message to a peer. Properties that are `None` or false are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WireMessage<'v> {
    pub(super) controller: &'v str,
    pub(super) topic: Option<&'v str>,
    pub(super) action: Option<&'static str>,
    pub(super) transaction: Option<&'v Value>,
    pub(super) data: Option<&'v Value>,
    pub(super) confirm: bool,
    /// The `UserID` of the client that calls a back end.
    pub(super) user: Option<&'v str>,
    /// The id of the client's connection.
    pub(super) session: Option<&'v str>,
    /// The protocol version of the client.
    pub(super) version: Option<&'v str>,
}

impl WireMessage<'_> {
    /// Encodes the payload of one message.
    pub(super) fn encode(&self, format: Format) -> Result<Vec<u8>, value::Error> {
        let mut members: Vec<(Box<str>, Value)> = Vec::with_capacity(6);
        let mut add = |key: &str, value| members.push((key.into(), value));
        add("Controller", Value::text(self.controller));
        for (key, text) in [
            ("Topic", self.topic),
            ("Action", self.action),
            ("UserID", self.user),
            ("Session", self.session),
            ("Version", self.version),
        ] {
            if let Some(text) = text {
                add(key, Value::text(text));
            }
        }
        if let Some(number) = self.transaction {
            add("TransactionID", number.clone());
        }
        if self.confirm {
            add("Confirm", Value::Bool(true));
        }
        let mut out = Vec::new();
        match self.data {
            Some(data) => {
                let envelope = Envelope { members, key: "Data".into() };
                envelope.encode(format, &EnvelopeBody::Value(data), &mut out)?;
            }
            None => value::encode(format, &Value::Map(members), &mut out)?,
        }
        Ok(out)
    }
}

/// The envelope around data on a topic, for all subscribers.
pub(super) fn envelope(controller: &str, topic: &str) -> Envelope {
    let members =
        vec![("Controller".into(), Value::text(controller)), ("Topic".into(), Value::text(topic))];
    Envelope { members, key: "Data".into() }
}

/// The id of a client's connection, which back ends get as `Session`. In a cluster it ends with the
/// process of the client's node.
pub(super) fn session(env: &Env, peer: ZenithPeer) -> String {
    let (core, slot) = (peer.conn.core, peer.conn.slot);
    let own = format!("{core}.{}.{}", slot.index, slot.generation);
    match peer.process_in(env) {
        0 => own,
        process => format!("{own}.{process:016x}"),
    }
}

/// The connection with this session id, which may be closed or may never have existed. `None` if
/// the text is not such an id.
pub(super) fn parse_session(env: &Env, text: &str) -> Option<ZenithPeer> {
    let own = env.runtime.cluster.process();
    let (text, process) = match own {
        0 => (text, 0),
        _ => {
            let (text, process) = text.rsplit_once('.')?;
            let is_hex = process.len() == 16 && process.bytes().all(|it| it.is_ascii_hexdigit());
            (text, u64::from_str_radix(process, 16).ok().filter(|_| is_hex)?)
        }
    };
    let conn = parse_conn(text)?;
    Some(ZenithPeer::of(env, process, conn))
}

fn parse_conn(text: &str) -> Option<ConnId> {
    let mut parts = text.split('.');
    let mut number = || parts.next().and_then(digits);
    let (core, index, generation) = (number()?, number()?, number()?);
    let slot = Slot { index: u32::try_from(index).ok()?, generation };
    let conn = ConnId { core: u16::try_from(core).ok()?, slot };
    parts.next().is_none().then_some(conn)
}

/// The channel name of a controller's topic. A controller does not contain U+0000.
pub fn channel(controller: &str, topic: &str) -> String {
    format!("{controller}\0{topic}")
}

/// The controller and the topic of a channel name.
pub(super) fn split(channel: &str) -> (&str, &str) {
    channel.split_once('\0').unwrap_or((channel, ""))
}

/// The kind of a topic: the part before its first `!`.
pub(super) fn kind(topic: &str) -> &str {
    topic.split_once('!').map_or(topic, |(kind, _)| kind)
}

/// The type of WebSocket message that carries a format.
pub(super) fn message_kind(format: Format) -> MessageKind {
    if format.is_text() { MessageKind::Text } else { MessageKind::Binary }
}

/// Builds one frozen frame around a payload.
pub(super) fn freeze(format: Format, payload: &[u8]) -> Frozen {
    let opcode = if format.is_text() { ws::Opcode::Text } else { ws::Opcode::Binary };
    let mut out = Vec::with_capacity(frame::HEADER_BYTES + payload.len());
    frame::push(&mut out, opcode, payload, None);
    Frozen::new(&out)
}

/// Parses a time span `[d.]h:m[:s[.f]]` into milliseconds.
pub(super) fn parse_span(text: &str) -> Option<u64> {
    let (hours, rest) = text.split_once(':')?;
    let (days, hours) = match hours.split_once('.') {
        Some((days, hours)) => (digits(days)?, hours),
        None => (0, hours),
    };
    let (minutes, seconds) = rest.split_once(':').unwrap_or((rest, "0"));
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let (hours, minutes, seconds) = (digits(hours)?, digits(minutes)?, digits(seconds)?);
    digits(fraction)?;
    let thousandths = digits(fraction.get(..3).unwrap_or(fraction))?
        * [1, 100, 10].get(fraction.len()).copied().unwrap_or(1);
    if hours > 23 && days > 0 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + thousandths)
}

/// Parses one to nine decimal digits.
fn digits(text: &str) -> Option<u64> {
    let whole = (1..=9).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    if whole { text.parse().ok() } else { None }
}

/// Formats milliseconds as `hh:mm:ss`, with `.fff` if they are not whole seconds.
pub(super) fn span(ms: u64) -> String {
    let (s, thousandths) = (ms / 1000, ms % 1000);
    let whole = format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    match thousandths {
        0 => whole,
        rest => format!("{whole}.{rest:03}"),
    }
}

/// Whether a value is larger than what one entry of the log takes.
pub(super) fn is_too_large(env: &Env, value: &Value) -> bool {
    let max = env.config.cluster.as_ref().map(|cluster| cluster.entry_max());
    max.is_some_and(|max| compact::size(value) as u64 > max)
}

/// The error code for a controller that no connected back end serves.
pub(super) fn unavailable(controller: &str) -> String {
    format!("{controller}.Unavailable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn zenith_timespan_is_read_in_each_form() {
        for (text, expected) in [
            ("00:00:35", Some(35_000)),
            ("0:1", Some(60_000)),
            ("1.02:03:04.5", Some(93_784_500)),
            ("00:00:00.05", Some(50)),
            ("00:00:01.1234567", Some(1_123)),
            ("100:00", Some(360_000_000)),
            ("1.24:00", None),
            ("35", None),
            ("", None),
            (":", None),
            ("0:60", None),
            ("0:0:60", None),
            ("-1:00", None),
            ("+1:00", None),
            ("1:2:3:4", None),
            ("9999999999:00", None),
        ] {
            assert_eq!(parse_span(text), expected, "{text}");
        }
        assert_eq!(span(35_000), "00:00:35");
        assert_eq!(span(3_600_050), "01:00:00.050");
    }

    #[test]
    fn zenith_session_id_round_trips() {
        let slot = Slot { index: 70_000, generation: (1 << 24) - 1 };
        let conn = ConnId { core: 65_535, slot };
        let env = Env::new(crate::config::Config::demo(), 0).expect("an environment");
        assert_eq!(session(&env, conn.into()), "65535.70000.16777215");
        assert_eq!(parse_session(&env, &session(&env, conn.into())), Some(conn.into()));
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.3.", "65536.0.1", "-1.0.1", "a.b.c", "1..1"] {
            assert_eq!(parse_session(&env, text), None, "{text}");
        }
        // In a cluster, of this node and of another one.
        env.runtime.cluster.set_process(0xab);
        let other = ZenithPeer { process: 0xcd, conn };
        for (peer, process) in [(conn.into(), "ab"), (other, "cd")] {
            let text = format!("65535.70000.16777215.00000000000000{process}");
            assert_eq!(session(&env, peer), text);
            assert_eq!(parse_session(&env, &text), Some(peer));
        }
        for text in ["1.2.3", "1.2.3.4", "1.2.3.+0000000000000ab", "1.2.3.00000000000000abc"] {
            assert_eq!(parse_session(&env, text), None, "{text}");
        }
    }

    #[test]
    fn zenith_values_have_a_maximum_in_a_cluster() {
        let text = |bytes: usize| Value::text(&"x".repeat(bytes));
        let cluster = config::Cluster { hold_bytes: 1 << 20, ..Default::default() };
        let max = cluster.entry_max() as usize;
        let config = config::Config { cluster: Some(Box::new(cluster)), ..config::Config::demo() };
        let clustered = Env::new(config, 0).expect("an environment");
        let alone = Env::new(config::Config::demo(), 0).expect("an environment");
        // A kind and a length of three bytes.
        assert!(!is_too_large(&clustered, &text(max - 4)));
        assert!(is_too_large(&clustered, &text(max - 3)));
        assert!(!is_too_large(&alone, &text(max)));
    }

    #[test]
    fn zenith_topic_has_a_kind() {
        for (topic, expected) in
            [("Markets", "Markets"), ("Security!BHP.ASX", "Security"), ("News!A!B", "News")]
        {
            assert_eq!(kind(topic), expected);
        }
        assert_eq!(split(&channel("Market", "a\0b")), ("Market", "a\0b"));
    }

    #[test]
    fn zenith_members_are_ordered_and_missing_ones_left_out() {
        let (seven, data) = (Value::Int(7), Value::map([("Last", Value::Int(10))]));
        let message =
            WireMessage { controller: "Market", topic: Some("T"), ..WireMessage::default() };
        let cases = [
            (WireMessage { data: Some(&data), ..message }, r#""Data":{"Last":10}"#),
            (
                WireMessage { transaction: Some(&seven), data: Some(&data), ..message },
                r#""TransactionID":7,"Data":{"Last":10}"#,
            ),
            (
                WireMessage { action: Some(SUB), confirm: true, ..message },
                r#""Action":"Sub","Confirm":true"#,
            ),
            (WireMessage { action: Some(UNSUB), ..message }, r#""Action":"Unsub""#),
        ];
        for (message, rest) in cases {
            let text = String::from_utf8(message.encode(Format::Json).unwrap()).unwrap();
            assert_eq!(text, format!(r#"{{"Controller":"Market","Topic":"T",{rest}}}"#));
        }
    }
}
