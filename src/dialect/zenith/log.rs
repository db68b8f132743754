//! Events of topics in the log of a cluster. All nodes read the same log, so that a topic has the
//! same order and the same picture on all of them; each makes the formats of its clients itself.
//!
//! ```text
//! event   = flags(1) retain(1) [excluded(16)] [number(maximum of a log)] [value]
//! message = 16 peer what(1) rest, to one connection
//! peer    = process(8) core(2) index(4) generation(8)
//! ```
//!
//! Numbers and values are those of [`compact`]. The controller and the topic are in the name of the
//! channel.

use super::commands::CLEARS;
use super::messages::ZenithMessage;
use super::{direct, wire};
use crate::codec::{Envelope, compact};
use crate::dialect::{DialectMessage, Env, Event, EventPayload};
use crate::hub::{Encodings, Excluded, Mode, PictureChange, Retention};
use std::sync::Arc;

/// Bits of the flags: the payload is the value, or the end of the topic, of which the value is the
/// error; without both there is none.
const DATA: u8 = 1;
const END: u8 = 2;
const HAS_VALUE: u8 = 4;
const EXCLUDES: u8 = 8;

/// What is kept: nothing, no picture any more, or the picture after a change by one of four modes,
/// or the value itself in its place, which subscribers get or do not.
const NOTHING: u8 = 0;
const CLEAR: u8 = 1;
const UPDATE: u8 = 2;
const INSTALL: u8 = 6;
const INSTALL_RECEIVED: u8 = 10;
const MODES: u8 = 4;
/// The mode that has a maximum.
const LOG: u8 = 3;

/// The envelope of a channel's values.
pub fn channel_envelope(channel: &str) -> Envelope {
    let (controller, topic) = wire::split(channel);
    wire::envelope(controller, topic)
}

/// For how many seconds the log of a cluster keeps an event at least.
pub fn kept_s(env: &Env, event: &Event) -> u64 {
    let cluster = env.config.cluster.as_ref().filter(|_| is_change(event));
    cluster.map_or(0, |cluster| cluster.picture_change_s())
}

fn is_change(event: &Event) -> bool {
    matches!(event.retain, Retention::Picture(_))
}

/// An event for the log; `None` if a cluster does not carry it.
pub fn event_into_log(env: &Env, event: &Event) -> Option<Vec<u8>> {
    let (mut flags, value) = match &event.payload {
        EventPayload::Nothing => (0, None),
        EventPayload::Value(encodings) => (DATA, Some(encodings.value()?)),
        EventPayload::Message(DialectMessage::Zenith(message)) => match &**message {
            ZenithMessage::End { error, .. } => (END, error.as_ref()),
            ZenithMessage::Tell(to, what) => return direct::into_log(env, *to, what),
            _ => return None,
        },
        _ => return None,
    };
    let (retain, max) = retain_into(&event.retain)?;
    let excluded = event.except.map(|except| match except.connection() {
        Ok(conn) => env.socket_ids.numbers_of(conn),
        Err(numbers) => numbers,
    });
    flags |= if value.is_some() { HAS_VALUE } else { 0 };
    flags |= if excluded.is_some() { EXCLUDES } else { 0 };
    let mut out = vec![flags, retain];
    for number in excluded.into_iter().flatten() {
        out.extend_from_slice(&number.to_le_bytes());
    }
    if let Some(max) = max {
        compact::push_number(&mut out, max.into());
    }
    if let Some(value) = value {
        compact::push(value, &mut out);
    }
    Some(out)
}

/// Reads an event of a channel; `None` if it is malformed.
pub fn event_of_log(env: &Env, channel: &str, mut rest: &[u8]) -> Option<Event> {
    if let Some(rest) = rest.strip_prefix(&[direct::MESSAGE]) {
        let (to, what) = direct::of_log(env, channel, rest)?;
        return Some(Event::message(ZenithMessage::Tell(to, Arc::new(what)).into()));
    }
    let (flags, retain) = (compact::take_byte(&mut rest)?, compact::take_byte(&mut rest)?);
    let kind = flags & (DATA | END);
    if flags & !(DATA | END | HAS_VALUE | EXCLUDES) != 0 || kind == DATA | END {
        return None;
    }
    let mut except = None;
    if flags & EXCLUDES != 0 {
        let numbers = [compact::take_u64(&mut rest)?, compact::take_u64(&mut rest)?];
        except = env.socket_ids.find(numbers).map(Excluded::from);
    }
    let retain = retain_of(retain, &mut rest)?;
    let value = match flags & HAS_VALUE {
        0 if rest.is_empty() => None,
        0 => return None,
        _ => Some(compact::read(rest)?),
    };
    let is_value_kept =
        !matches!(retain, Retention::Nothing | Retention::Picture(PictureChange::Clear));
    let payload = match (kind, value) {
        (DATA, Some(value)) => {
            let envelope = Arc::new(channel_envelope(channel));
            EventPayload::Value(Arc::new(Encodings::new(envelope, value, env.compresses).ok()?))
        }
        _ if is_value_kept => return None,
        (END, error) => {
            let message = ZenithMessage::End { channel: channel.into(), error };
            EventPayload::Message(message.into())
        }
        (0, None) => EventPayload::Nothing,
        _ => return None,
    };
    Some(Event { payload, except, retain, ..Event::default() })
}

/// The byte of what is kept, and the maximum of a log.
fn retain_into(retain: &Retention) -> Option<(u8, Option<u32>)> {
    let (base, mode) = match retain {
        Retention::Nothing => return Some((NOTHING, None)),
        Retention::Picture(PictureChange::Clear) => return Some((CLEAR, None)),
        Retention::Picture(PictureChange::Update(mode)) => (UPDATE, mode),
        Retention::Picture(PictureChange::Install { mode, received: false }) => (INSTALL, mode),
        Retention::Picture(PictureChange::Install { mode, received: true }) => {
            (INSTALL_RECEIVED, mode)
        }
        _ => return None,
    };
    Some(match mode {
        Mode::Replace => (base, None),
        Mode::Merge { null_deletes } => (base + 1 + u8::from(*null_deletes), None),
        Mode::Log { max, .. } => (base + LOG, Some(*max)),
    })
}

fn retain_of(byte: u8, rest: &mut &[u8]) -> Option<Retention> {
    let base = match byte {
        NOTHING => return Some(Retention::Nothing),
        CLEAR => return Some(Retention::Picture(PictureChange::Clear)),
        _ => byte - (byte - UPDATE) % MODES,
    };
    let mode = match byte - base {
        0 => Mode::Replace,
        LOG => {
            let max = u32::try_from(compact::take_number(rest)?).ok()?;
            Mode::Log { max, clears: CLEARS }
        }
        merge => Mode::Merge { null_deletes: merge == 2 },
    };
    Some(Retention::Picture(match base {
        UPDATE => PictureChange::Update(mode),
        INSTALL => PictureChange::Install { mode, received: false },
        INSTALL_RECEIVED => PictureChange::Install { mode, received: true },
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Value;
    use crate::config::Config;
    use proptest::prelude::*;

    const NAME: &str = "Market\0S!a";

    fn env() -> Env {
        Env::new(Config::demo(), 0).expect("an environment")
    }

    fn event(retain: Retention, value: Value) -> Event {
        let envelope = Arc::new(channel_envelope(NAME));
        let encodings = Encodings::new(envelope, value, false).expect("sound");
        Event { payload: EventPayload::Value(Arc::new(encodings)), retain, ..Event::default() }
    }

    fn there_and_back(event: &Event) -> Event {
        let env = env();
        let bytes = event_into_log(&env, event).expect("it is carried");
        for end in 0..bytes.len() {
            assert!(event_of_log(&env, NAME, &bytes[..end]).is_none(), "{end} {event:?}");
        }
        event_of_log(&env, NAME, &bytes).expect("an event")
    }

    #[test]
    fn zenith_events_go_through_the_log_with_what_is_kept_of_them() {
        let modes = [
            Mode::Replace,
            Mode::Merge { null_deletes: false },
            Mode::Merge { null_deletes: true },
            Mode::Log { max: 300, clears: CLEARS },
        ];
        let mut retains = vec![Retention::Nothing, Retention::Picture(PictureChange::Clear)];
        for mode in modes {
            retains.push(Retention::Picture(PictureChange::Update(mode)));
            for received in [false, true] {
                let change = PictureChange::Install { mode, received };
                retains.push(Retention::Picture(change));
            }
        }
        let value = Value::map([("a", Value::number_text("10.10").expect("a number"))]);
        for retain in retains {
            let sent = event(retain, value.clone());
            let got = there_and_back(&sent);
            assert_eq!(format!("{:?}", got.retain), format!("{:?}", sent.retain));
            let encodings = got.encodings().expect("a value");
            assert_eq!(encodings.value(), Some(&value));
            let format = crate::codec::Format::Json;
            let sent = sent.encodings().expect("a value").encoded(format).clone();
            assert_eq!(**encodings.encoded(format), *sent, "the envelope");
        }
    }

    #[test]
    fn zenith_ends_and_removals_go_through_the_log() {
        for error in [None, Some(Value::text("Fault"))] {
            let what = ZenithMessage::End { channel: NAME.into(), error: error.clone() };
            let payload = EventPayload::Message(what.into());
            let got = there_and_back(&Event { payload, ..Event::clear() });
            let EventPayload::Message(DialectMessage::Zenith(message)) = &got.payload else {
                panic!("{got:?}")
            };
            let ZenithMessage::End { channel, error: read } = &**message else {
                panic!("{message:?}")
            };
            assert_eq!((&**channel, read), (NAME, &error));
            assert!(matches!(got.retain, Retention::Picture(PictureChange::Clear)));
        }
        let got = there_and_back(&Event::clear());
        assert!(!got.has_recipients() && is_change(&got));
        let kick = Event::message(ZenithMessage::Kick("").into());
        assert!(event_into_log(&env(), &kick).is_none(), "not carried");
    }

    #[test]
    fn zenith_sender_is_excluded_on_its_node_only() {
        let (ours, mut other) = (env(), env());
        other.socket_ids = crate::dialect::SocketIds::of_number(9);
        let slot = crate::mem::Slot { index: 3, generation: 1 };
        let conn = crate::hub::ConnId { core: 0, slot };
        let sent = Event { except: Some(conn.into()), ..event(Retention::Nothing, Value::Null) };
        let bytes = event_into_log(&ours, &sent).expect("it is carried");
        let except = |env: &Env| event_of_log(env, NAME, &bytes).expect("an event").except;
        assert_eq!((except(&ours), except(&other)), (Some(conn.into()), None));
    }

    #[test]
    fn zenith_event_of_the_log_is_refused_if_its_parts_do_not_fit() {
        for bytes in [
            &[DATA | END | HAS_VALUE, NOTHING, 0][..],
            &[DATA, NOTHING],
            &[0, UPDATE],
            &[END, UPDATE],
            &[HAS_VALUE, NOTHING, 0],
            &[32, NOTHING],
            &[DATA | HAS_VALUE, INSTALL_RECEIVED + MODES, 0],
            &[DATA | HAS_VALUE, UPDATE + LOG, 0xff, 0xff, 0xff, 0xff, 0x10, 0],
            &[DATA | HAS_VALUE, NOTHING, 0, 0],
        ] {
            assert!(event_of_log(&env(), NAME, bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn zenith_event_of_any_bytes_is_read_or_refused(bytes: Vec<u8>) {
            let _ = event_of_log(&env(), NAME, &bytes);
        }
    }
}
