//! The ids of the events in one stream of server-sent events of several channels.
//!
//! A client that connects again sends only the id of the last event, so each id has the positions
//! of all channels of the stream that have a history: `STREAM:SERIAL`, separated by commas, in the
//! order of the channels, and nothing in the place of a channel whose position is not known yet.
//! The id is written before the shared data of an event, as a part of the same event (WHATWG HTML,
//! section 9.2), so that a client gets both or neither.

use super::record::{EventId, push_chunk};

/// The maximum length of one position with its comma: 16 digits of the stream, a colon, 20 digits
/// of the serial number.
const POSITION_BYTES: usize = 16 + 1 + 20 + 1;

/// The positions of the channels of one stream of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventIds(Box<[Option<EventId>]>);

impl EventIds {
    /// The maximum number of channels with a history in one stream. An id of so many positions has
    /// at most 1215 bytes.
    pub const MAX: usize = 32;

    /// The positions of `count` channels, none of which is known.
    pub fn new(count: usize) -> EventIds {
        EventIds(vec![None; count].into())
    }

    /// Reads an id of `count` positions. `None` if `text` is not such an id.
    pub fn read(text: &str, count: usize) -> Option<EventIds> {
        let position = |text: &str| match text {
            "" => Some(None),
            text => EventId::read(text).map(Some),
        };
        // One more, so that an id of too many positions is not mistaken for one of `count`.
        let ids: Option<Vec<_>> = text.split(',').take(count + 1).map(position).collect();
        ids.filter(|ids| ids.len() == count).map(|ids| EventIds(ids.into()))
    }

    /// Whether `text` is an id of any number of positions, as a server may have sent it.
    pub fn is_id(text: &str) -> bool {
        let count = text.split(',').take(EventIds::MAX + 1).count();
        count <= EventIds::MAX && EventIds::read(text, count).is_some()
    }

    /// Whether the ids of the stream have no positions, or are written elsewhere.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The position at `place`, which counts from 1.
    pub fn get(&self, place: u8) -> Option<EventId> {
        self.0.get(usize::from(place).checked_sub(1)?).copied().flatten()
    }

    /// Sets the position at `place`, which counts from 1.
    pub fn set(&mut self, place: u8, id: EventId) {
        let at = usize::from(place).checked_sub(1).and_then(|at| self.0.get_mut(at));
        if let Some(known) = at {
            *known = Some(id);
        }
    }

    /// The chunk with the line of the id, which comes before the chunk with the data of an event
    /// after which the position at `place` is `id`.
    pub fn line_with(&self, place: u8, id: EventId) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.max_bytes());
        let ids = (1..).zip(&self.0).map(|(at, known)| if at == place { Some(id) } else { *known });
        push_chunk(&mut line, &[line_of(ids).as_bytes()]);
        line
    }

    /// The line of the present id.
    pub(super) fn line(&self) -> String {
        line_of(self.0.iter().copied())
    }

    /// The maximum length of the chunk with the line of an id, in bytes.
    pub fn max_bytes(&self) -> usize {
        const LINE: usize = "id: \n".len();
        const CHUNK: usize = "fff\r\n\r\n".len();
        CHUNK + LINE + self.0.len() * POSITION_BYTES
    }
}

fn line_of(ids: impl Iterator<Item = Option<EventId>>) -> String {
    let texts = ids.map(|id| id.map_or_else(String::new, |id| id.to_string()));
    format!("id: {}\n", texts.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(stream: u64, serial: u64) -> EventId {
        EventId { stream, serial }
    }

    #[test]
    fn event_ids_are_read_as_they_are_written() {
        let mut ids = EventIds::new(3);
        assert_eq!((ids.line().as_str(), ids.get(1)), ("id: ,,\n", None));
        ids.set(2, id(0x2a, 41));
        assert_eq!(ids.line(), "id: ,000000000000002a:41,\n");
        let line = String::from_utf8(ids.line_with(3, id(7, u64::MAX))).expect("text");
        let text = ",000000000000002a:41,0000000000000007:18446744073709551615";
        assert_eq!(line, format!("{:x}\r\nid: {text}\n\r\n", text.len() + 5));
        assert_eq!(ids.get(3), None, "the event is not queued yet");
        ids.set(3, id(7, u64::MAX));
        assert_eq!(EventIds::read(text, 3).as_ref(), Some(&ids));
        assert_eq!(
            [0, 1, 2, 4].map(|place| ids.get(place)),
            [None, None, Some(id(0x2a, 41)), None]
        );
        ids.set(0, id(1, 1));
        ids.set(4, id(1, 1));
        assert_eq!(EventIds::read(text, 3), Some(ids), "no such places");
    }

    #[test]
    fn event_ids_of_another_number_of_channels_are_malformed() {
        let text = "000000000000002a:41,,0000000000000007:0";
        for (count, is_read) in [(2, false), (3, true), (4, false)] {
            assert_eq!(EventIds::read(text, count).is_some(), is_read, "{count}");
        }
        for text in ["", "x,,", "000000000000002a:41, ,", "000000000000002a:41,,-", ",,,"] {
            assert_eq!(EventIds::read(text, 3), None, "{text}");
        }
    }

    #[test]
    fn event_ids_are_recognised_up_to_their_bound() {
        let text = "000000000000002a:41,".repeat(EventIds::MAX);
        assert!(EventIds::is_id(&text[..text.len() - 1]) && !EventIds::is_id(&text));
        for (text, is_id) in [("000000000000002a:41", true), (",", true), ("a\nb", false)] {
            assert_eq!(EventIds::is_id(text), is_id, "{text}");
        }
    }

    #[test]
    fn event_ids_have_a_bound() {
        let mut ids = EventIds::new(EventIds::MAX);
        (1..=EventIds::MAX as u8).for_each(|place| ids.set(place, id(u64::MAX, u64::MAX)));
        let chunk = ids.line_with(1, id(u64::MAX, u64::MAX));
        assert_eq!(ids.line().len(), "id: \n".len() + 1215);
        assert!(chunk.len() <= ids.max_bytes() && ids.max_bytes() <= chunk.len() + 2);
    }
}
