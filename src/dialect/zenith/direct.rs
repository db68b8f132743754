//! Messages between connections of different nodes, as they are in the log of a cluster.

use super::messages::{Call, CallOutcome, KICKED, TOO_MANY, ZenithMessage};
use super::peer::ZenithPeer;
use crate::codec::{Value, compact};
use crate::dialect::{DialectMessage, Env, Event, EventPayload};
use crate::hub::ConnId;
use crate::mem::Slot;
use std::sync::Arc;

/// The first byte of a message, which no event has.
pub(super) const MESSAGE: u8 = 16;

/// What a message is.
const KICK: u8 = 0;
const CALL: u8 = 1;
const FORGET: u8 = 2;
const ANSWER: u8 = 3;
const END: u8 = 4;

/// Bits of a call.
const SUBSCRIBES: u8 = 1;
const HAS_USER: u8 = 2;
const HAS_DATA: u8 = 4;

/// How an answer has ended.
const DONE: u8 = 0;
const DONE_WITH: u8 = 1;
const FAILED: u8 = 2;

/// The reasons of kicks.
const REASONS: [&str; 2] = [KICKED, TOO_MANY];

/// A message for the log; `None` if it is none for other nodes.
pub(super) fn into_log(env: &Env, to: ZenithPeer, what: &ZenithMessage) -> Option<Vec<u8>> {
    let mut out = vec![MESSAGE];
    push_peer(env, to, &mut out);
    match what {
        ZenithMessage::Kick(reason) => {
            let index = REASONS.iter().position(|known| known == reason)?;
            out.extend_from_slice(&[KICK, index as u8]);
        }
        ZenithMessage::Call(call) => {
            out.push(CALL);
            push_call(env, call, &mut out);
        }
        ZenithMessage::Forget { from, call } => {
            out.push(FORGET);
            push_peer(env, *from, &mut out);
            compact::push_number(&mut out, (*call).into());
        }
        ZenithMessage::Answer { call, outcome } => {
            out.push(ANSWER);
            compact::push_number(&mut out, (*call).into());
            let (kind, value) = match outcome {
                CallOutcome::Done(None) => (DONE, None),
                CallOutcome::Done(Some(value)) => (DONE_WITH, Some(value)),
                CallOutcome::Failed(error) => (FAILED, Some(error)),
            };
            out.push(kind);
            value.into_iter().for_each(|value| compact::push(value, &mut out));
        }
        ZenithMessage::End { error, .. } => {
            out.extend_from_slice(&[END, u8::from(error.is_some())]);
            error.iter().for_each(|error| compact::push(error, &mut out));
        }
        ZenithMessage::Feeds(_) | ZenithMessage::Tell(..) => return None,
    }
    Some(out)
}

/// Reads a message in a channel, and to whom it is; `None` if it is malformed.
pub(super) fn of_log(
    env: &Env,
    channel: &str,
    mut rest: &[u8],
) -> Option<(ZenithPeer, ZenithMessage)> {
    let to = take_peer(env, &mut rest)?;
    let what = match compact::take_byte(&mut rest)? {
        KICK => {
            let index = compact::take_byte(&mut rest)?;
            ZenithMessage::Kick(REASONS.get(usize::from(index))?)
        }
        CALL => ZenithMessage::Call(take_call(env, &mut rest)?),
        FORGET => ZenithMessage::Forget {
            from: take_peer(env, &mut rest)?,
            call: u32::try_from(compact::take_number(&mut rest)?).ok()?,
        },
        ANSWER => {
            let call = u32::try_from(compact::take_number(&mut rest)?).ok()?;
            let outcome = match compact::take_byte(&mut rest)? {
                DONE => CallOutcome::Done(None),
                DONE_WITH => CallOutcome::Done(Some(take_value(&mut rest)?)),
                FAILED => CallOutcome::Failed(take_value(&mut rest)?),
                _ => return None,
            };
            ZenithMessage::Answer { call, outcome }
        }
        END => {
            let error = match compact::take_byte(&mut rest)? {
                0 => None,
                1 => Some(take_value(&mut rest)?),
                _ => return None,
            };
            ZenithMessage::End { channel: channel.into(), error }
        }
        _ => return None,
    };
    rest.is_empty().then_some((to, what))
}

/// To which connection of this process the event is a message, if it is one to any connection:
/// `Some(None)` if it is for another process.
pub fn direct_of(event: &Event) -> Option<Option<(ConnId, DialectMessage)>> {
    let EventPayload::Message(DialectMessage::Zenith(message)) = &event.payload else {
        return None;
    };
    match &**message {
        ZenithMessage::Tell(ZenithPeer { process: 0, conn }, what) => {
            Some(Some((*conn, Arc::clone(what).into())))
        }
        ZenithMessage::Tell(..) => Some(None),
        _ => None,
    }
}

fn push_peer(env: &Env, peer: ZenithPeer, out: &mut Vec<u8>) {
    let ConnId { core, slot } = peer.conn;
    out.extend_from_slice(&peer.process_in(env).to_le_bytes());
    out.extend_from_slice(&core.to_le_bytes());
    out.extend_from_slice(&slot.index.to_le_bytes());
    out.extend_from_slice(&slot.generation.to_le_bytes());
}

fn take_peer(env: &Env, rest: &mut &[u8]) -> Option<ZenithPeer> {
    let process = compact::take_u64(rest)?;
    let core = u16::from_le_bytes(compact::take(rest, 2)?.try_into().ok()?);
    let index = u32::from_le_bytes(compact::take(rest, 4)?.try_into().ok()?);
    let generation = compact::take_u64(rest)?;
    Some(ZenithPeer::of(env, process, ConnId { core, slot: Slot { index, generation } }))
}

/// The value that is the rest.
fn take_value(rest: &mut &[u8]) -> Option<Value> {
    compact::read(std::mem::take(rest))
}

fn push_call(env: &Env, call: &Call, out: &mut Vec<u8>) {
    push_peer(env, call.from, out);
    compact::push_number(out, call.call.into());
    for text in [&call.controller, &call.topic, &call.version] {
        compact::push_text(out, text);
    }
    let mut flags = if call.subscribes { SUBSCRIBES } else { 0 };
    flags |= if call.user.is_some() { HAS_USER } else { 0 };
    flags |= if call.data.is_some() { HAS_DATA } else { 0 };
    out.push(flags);
    call.user.iter().for_each(|user| compact::push_text(out, user));
    call.data.iter().for_each(|data| compact::push(data, out));
}

fn take_call(env: &Env, rest: &mut &[u8]) -> Option<Call> {
    let from = take_peer(env, rest)?;
    let call = u32::try_from(compact::take_number(rest)?).ok()?;
    let mut text = || Some(Box::<str>::from(compact::take_text(rest)?));
    let (controller, topic, version) = (text()?, text()?, text()?);
    let flags = compact::take_byte(rest)?;
    if flags & !(SUBSCRIBES | HAS_USER | HAS_DATA) != 0 {
        return None;
    }
    let user = match flags & HAS_USER {
        0 => None,
        _ => Some(compact::take_text(rest)?.into()),
    };
    let data = match flags & HAS_DATA {
        0 => None,
        _ => Some(take_value(rest)?),
    };
    let subscribes = flags & SUBSCRIBES != 0;
    Some(Call { from, call, controller, topic, subscribes, data, user, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "Market\0S!a";

    /// The environment of a process of a cluster.
    fn env(process: u64) -> Env {
        let env = Env::new(crate::config::Config::demo(), 0).expect("an environment");
        env.runtime.cluster.set_process(process);
        env
    }

    fn peer(process: u64) -> ZenithPeer {
        let slot = Slot { index: 70_000, generation: 1 << 40 };
        ZenithPeer { process, conn: ConnId { core: 3, slot } }
    }

    fn messages() -> Vec<ZenithMessage> {
        let call = |subscribes, data, user: Option<&str>| {
            let (from, user) = (peer(0), user.map(Into::into));
            let (controller, topic, version) = ("Market".into(), "Q".into(), "2.0".into());
            Call { from, call: 300, controller, topic, subscribes, data, user, version }
        };
        let answer = |outcome| ZenithMessage::Answer { call: u32::MAX, outcome };
        let end = |error| ZenithMessage::End { channel: NAME.into(), error };
        vec![
            ZenithMessage::Kick(KICKED),
            ZenithMessage::Kick(TOO_MANY),
            ZenithMessage::Call(call(false, Some(Value::Int(1)), Some("ada"))),
            ZenithMessage::Call(call(true, None, None)),
            ZenithMessage::Forget { from: peer(0), call: 7 },
            answer(CallOutcome::Done(None)),
            answer(CallOutcome::Done(Some(Value::Null))),
            answer(CallOutcome::failed("Fault")),
            end(None),
            end(Some(Value::text("Fault"))),
        ]
    }

    #[test]
    fn zenith_messages_reach_the_connection_of_one_node() {
        let (first, second) = (env(1), env(2));
        for what in messages() {
            let bytes = into_log(&first, peer(2), &what).expect("it is carried");
            for end in 1..bytes.len() {
                assert!(of_log(&second, NAME, &bytes[1..end]).is_none(), "{end} {what:?}");
            }
            let longer = [&bytes[1..], &[0]].concat();
            assert!(of_log(&second, NAME, &longer).is_none(), "{what:?}");
            let (to, read) = of_log(&second, NAME, &bytes[1..]).expect("a message");
            assert_eq!(to, peer(0), "its own connection");
            // Whoever is to be answered is on the other node.
            let expected = format!("{what:?}").replace("process: 0", "process: 1");
            assert_eq!(format!("{read:?}"), expected);
            let (to, _) = of_log(&first, NAME, &bytes[1..]).expect("a message");
            assert_eq!(to, peer(2));
        }
        let direct = |to| {
            let what = Arc::new(ZenithMessage::Kick(KICKED));
            direct_of(&Event::message(ZenithMessage::Tell(to, what).into()))
        };
        assert!(matches!(direct(peer(0)), Some(Some((conn, _))) if conn == peer(0).conn));
        assert!(matches!(direct(peer(9)), Some(None)) && direct_of(&Event::clear()).is_none());
        assert!(into_log(&first, peer(2), &ZenithMessage::Kick("other")).is_none());
    }

    proptest! {
        #[test]
        fn zenith_message_of_any_bytes_is_read_or_refused(bytes: Vec<u8>) {
            let _ = of_log(&env(1), NAME, &bytes);
        }
    }
}
