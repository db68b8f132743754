//! The positions of a client in the histories of channels: how they are written and read, and which
//! of them wait for the subscription to their channel.

use crate::codec::json::JsonText;
use crate::config::AppHistory;
use crate::hub::{HistoryLimit, ResumeFrom, ResumeOutcome, ResumeReply, StreamPosition};
use std::collections::HashMap;

/// The largest serial number that a JSON number carries exactly.
const SERIAL_MAX: i64 = (1 << 53) - 1;

/// What a client that receives positions has sent, and has not subscribed to yet.
#[derive(Debug, Default)]
pub(super) struct Resuming {
    pub(super) positions: HashMap<String, ResumeFrom>,
    /// The second in which the positions are dropped; 0 if there are none.
    pub(super) until_s: u32,
}

/// The limit by which a channel's home keeps its history.
pub(super) fn limit_of(history: &AppHistory) -> HistoryLimit {
    HistoryLimit { max: history.events, ttl_s: history.ttl_s, bytes: history.bytes }
}

/// The positions in the `data` of a resume message, by channel. `None` if they are not an object.
pub(super) fn read_positions(data: JsonText<'_, '_>) -> Option<Vec<(String, ResumeFrom)>> {
    let Some(positions) = data.get("channel_positions").filter(|it| !it.is_null()) else {
        return Some(Vec::new());
    };
    let members = positions.members()?;
    Some(members.map(|(name, from)| (name.to_owned(), read_from(from))).collect())
}

fn read_from(from: JsonText<'_, '_>) -> ResumeFrom {
    let number = |key, max| from.get(key)?.int().filter(|it| (0..=max).contains(it));
    if let Some(count) = number("rewind", u32::MAX.into()) {
        return ResumeFrom::Rewind(count as u32);
    }
    let stream = from.get("stream_id").and_then(|stream| stream_of(stream.text()?));
    match (stream, number("serial", SERIAL_MAX)) {
        (Some(stream), Some(serial)) => {
            ResumeFrom::Position(StreamPosition { stream, serial: serial as u64 })
        }
        _ => ResumeFrom::Malformed,
    }
}

/// The number of a stream, which is written in 16 hexadecimal digits.
fn stream_of(text: &str) -> Option<u64> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_whole = text.len() == 16 && text.as_bytes().iter().all(is_digit);
    is_whole.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl Resuming {
    /// Notes that a position was taken out.
    pub(super) fn settle(&mut self) {
        if self.positions.is_empty() {
            *self = Resuming::default();
        }
    }
}

/// Adds the position of a subscription, and whether it has been resumed, to its acknowledgement.
pub(super) fn push_resumed(message: &mut Vec<u8>, resumed: &ResumeReply) {
    if message.pop() == Some(b'}') {
        let recovered =
            matches!(resumed.outcome, ResumeOutcome::Recovered | ResumeOutcome::NoneKept);
        push_position(message, Some(resumed.position));
        message.extend_from_slice(format!(r#","recovered":{recovered}}}"#).as_bytes());
    }
}

/// Appends the members of a position, each preceded by a comma; they are null if there is none.
pub(super) fn push_position(out: &mut Vec<u8>, position: Option<StreamPosition>) {
    let members = match position {
        Some(StreamPosition { stream, serial }) => {
            format!(r#","stream_id":"{stream:016x}","serial":{serial}"#)
        }
        None => r#","stream_id":null,"serial":null"#.to_owned(),
    };
    out.extend_from_slice(members.as_bytes());
}

/// A position in the text of a query: its stream and its serial number.
pub(super) fn position_of((stream, serial): (&str, &str)) -> Option<StreamPosition> {
    let serial = serial.parse().ok().filter(|serial| *serial <= SERIAL_MAX as u64)?;
    Some(StreamPosition { stream: stream_of(stream)?, serial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json::Scratch;

    fn positions(data: &str) -> Option<Vec<(String, ResumeFrom)>> {
        let mut text = data.as_bytes().to_vec();
        Scratch::default().parse(&mut text, read_positions).expect("JSON")
    }

    #[test]
    fn history_positions_are_read_or_malformed_one_by_one() {
        let one = |from: &str| {
            let read = positions(&format!(r#"{{"channel_positions":{{"a":{from}}}}}"#));
            read.expect("an object").remove(0).1
        };
        let position = |stream, serial| ResumeFrom::Position(StreamPosition { stream, serial });
        let stream = r#""stream_id":"00000000000000ff""#;
        assert_eq!(one(&format!(r#"{{{stream},"serial":41}}"#)), position(255, 41));
        assert_eq!(one(&format!(r#"{{{stream},"serial":0}}"#)), position(255, 0));
        let max = (1_u64 << 53) - 1;
        assert_eq!(one(&format!(r#"{{{stream},"serial":{max}}}"#)), position(255, max));
        assert_eq!(one(r#"{"rewind":3}"#), ResumeFrom::Rewind(3));
        for bad in [
            format!(r#"{{{stream},"serial":{}}}"#, max + 1),
            format!(r#"{{{stream},"serial":-1}}"#),
            format!(r#"{{{stream},"serial":"41"}}"#),
            format!(r#"{{{stream}}}"#),
            r#"{"stream_id":"FF000000000000ff","serial":1}"#.to_owned(),
            r#"{"stream_id":"0ff","serial":1}"#.to_owned(),
            r#"{"stream_id":7,"serial":1}"#.to_owned(),
            r#"{"rewind":-1}"#.to_owned(),
            "7".to_owned(),
            "null".to_owned(),
        ] {
            assert_eq!(one(&bad), ResumeFrom::Malformed, "{bad}");
        }
        assert_eq!(positions("{}"), Some(Vec::new()));
        assert_eq!(positions(r#"{"channel_positions":null}"#), Some(Vec::new()));
        assert_eq!(positions(r#"{"channel_positions":[]}"#), None);
    }
}
