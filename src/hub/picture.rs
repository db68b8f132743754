//! The picture of a topic: the state that results from all its updates, which the home keeps for
//! later subscribers.
//!
//! The cost of an update depends on the update and not on the size of the picture: a picture is
//! encoded only for a subscriber, and the encoding is shared until the next change.

use super::encodings::{Encodings, freeze};
use super::event::{Clears, Mode, PictureChange};
use crate::codec::compact;
use crate::codec::value::member_memory;
use crate::codec::{Envelope, EnvelopeBody, Format, Value};
use crate::limits::PICTURE_BYTES;
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Picture {
    /// The envelope of the last value.
    envelope: Arc<Envelope>,
    state: State,
    /// The encodings of the state, until it changes, and their bytes.
    encodings: Option<Arc<Encodings>>,
    encoded_bytes: usize,
    compresses: bool,
    /// The picture's position in the order in which pictures and histories began; the hub maintains
    /// it.
    pub(super) since: u64,
}

/// The value of a picture that a node has stated; `None` if it is malformed.
pub fn picture_value(bytes: &[u8]) -> Option<Value> {
    bytes.split_first().and_then(|(_, bytes)| compact::read(bytes))
}

/// The kinds of states, as they are written.
const WHOLE: u8 = 1;
const MERGED: u8 = 2;
const LOG: u8 = 3;

#[derive(Debug)]
enum State {
    /// The encodings of one event, and the memory of its value.
    Whole(Arc<Encodings>, usize),
    Merged(Merged),
    Log(Log),
}

impl Picture {
    /// Changes the picture of a channel by the value of an event. Returns how many elements a log
    /// has lost.
    pub(super) fn apply(
        picture: &mut Option<Picture>,
        change: PictureChange,
        encodings: Option<&Arc<Encodings>>,
    ) -> u64 {
        let since = picture.as_ref().map_or(0, |picture| picture.since);
        let (state, mode) = match change {
            PictureChange::Clear => {
                *picture = None;
                return 0;
            }
            PictureChange::Update(mode) => (picture.take().map(|picture| picture.state), mode),
            PictureChange::Install { mode, .. } => (None, mode),
        };
        let Some(encodings) = encodings else { return 0 };
        let (Some(envelope), Some(value)) = (encodings.envelope(), encodings.value()) else {
            return 0;
        };
        let (state, trimmed) = State::after(state, encodings, value, mode);
        *picture = Some(Picture {
            envelope: envelope.clone(),
            state,
            encodings: None,
            encoded_bytes: 0,
            compresses: encodings.compresses(),
            since,
        });
        trimmed
    }

    /// The picture, encoded in `format`.
    pub(super) fn encodings(&mut self, format: Format) -> Arc<Encodings> {
        if let State::Whole(encodings, _) = &self.state {
            return encodings.clone();
        }
        let compresses = self.compresses;
        let encodings =
            self.encodings.get_or_insert_with(|| Arc::new(Encodings::empty(compresses)));
        self.encoded_bytes += encodings.make(format, || match &self.state {
            State::Merged(merged) => {
                freeze(format, &self.envelope, &EnvelopeBody::Members(&merged.members))
            }
            State::Log(log) => {
                freeze(format, &self.envelope, &EnvelopeBody::Elements(&log.elements))
            }
            State::Whole(..) => Default::default(),
        });
        encodings.clone()
    }

    /// The state as bytes, from which [`Picture::read`] makes the picture on other nodes.
    pub(super) fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.state {
            State::Whole(encodings, _) => {
                out.push(WHOLE);
                compact::push(encodings.value().unwrap_or(&Value::Null), &mut out);
            }
            State::Merged(merged) => {
                out.push(MERGED);
                compact::push_map(&merged.members, &mut out);
            }
            State::Log(log) => {
                out.push(LOG);
                compact::push_array(log.elements.len(), log.elements.iter(), &mut out);
            }
        }
        out
    }

    /// Makes the picture of a state that was written by [`Picture::written`]. `None` if it is
    /// malformed.
    pub(super) fn read(bytes: &[u8], envelope: Arc<Envelope>, compresses: bool) -> Option<Picture> {
        let (kind, bytes) = bytes.split_first()?;
        let value = compact::read(bytes)?;
        let state = match (*kind, value) {
            (WHOLE, value) => {
                let memory = value.memory();
                let encodings = Encodings::new(envelope.clone(), value, compresses).ok()?;
                State::Whole(Arc::new(encodings), memory)
            }
            (MERGED, value @ Value::Map(_)) => State::Merged(Merged::of(Some(&value))),
            (LOG, Value::Array(elements)) => {
                let bytes = elements.iter().map(Value::memory).sum();
                State::Log(Log { elements: elements.into(), bytes })
            }
            _ => return None,
        };
        let encoded_bytes = 0;
        Some(Picture { envelope, state, encodings: None, encoded_bytes, compresses, since: 0 })
    }

    /// Whether the picture's state exceeds [`PICTURE_BYTES`].
    pub(super) fn is_too_large(&self) -> bool {
        let state = match &self.state {
            State::Whole(_, memory) => *memory,
            State::Merged(merged) => merged.bytes,
            State::Log(log) => log.bytes,
        };
        state > PICTURE_BYTES
    }

    /// Bytes of memory, estimated. A whole value is counted with its future encodings.
    pub(super) fn bytes(&self) -> usize {
        let state = match &self.state {
            State::Whole(_, memory) => 2 * memory,
            State::Merged(merged) => merged.bytes,
            State::Log(log) => log.bytes,
        };
        size_of::<Picture>() + self.envelope.memory() + state + self.encoded_bytes
    }
}

impl State {
    /// The state after `value`, and how many elements a log has lost.
    fn after(
        state: Option<State>,
        encodings: &Arc<Encodings>,
        value: &Value,
        mode: Mode,
    ) -> (State, u64) {
        match (mode, value) {
            (Mode::Merge { null_deletes }, Value::Map(members)) => {
                let mut merged = match state {
                    Some(State::Merged(merged)) => merged,
                    Some(State::Whole(whole, _)) => Merged::of(whole.value()),
                    _ => Merged::default(),
                };
                merged.set_all(members, null_deletes);
                (State::Merged(merged), 0)
            }
            (Mode::Log { max, clears }, Value::Array(elements)) => {
                let mut log = match state {
                    Some(State::Log(log)) => log,
                    Some(State::Whole(whole, _)) => Log::of(whole.value(), clears),
                    _ => Log::default(),
                };
                log.push_all(elements, clears);
                let lost = log.trim(max as usize, clears);
                (State::Log(log), lost)
            }
            _ => (State::Whole(encodings.clone(), value.memory()), 0),
        }
    }
}

/// A map whose members are changed one by one.
#[derive(Debug, Default)]
struct Merged {
    members: Vec<(Box<str>, Value)>,
    /// Positions in `members`, by key.
    index: HashTable<u32>,
    hasher: RandomState,
    bytes: usize,
}

/// The approximate bytes of one entry of the index.
const PLACE_BYTES: usize = 8;

impl Merged {
    fn of(whole: Option<&Value>) -> Merged {
        let mut merged = Merged::default();
        merged.set_all(whole.and_then(Value::members).unwrap_or_default(), false);
        merged
    }

    fn set_all(&mut self, members: &[(Box<str>, Value)], null_deletes: bool) {
        for (key, value) in members {
            self.set(key, value, null_deletes);
        }
    }

    fn set(&mut self, key: &str, value: &Value, null_deletes: bool) {
        let hash = self.hasher.hash_one(key);
        let is_key = |&at: &u32| *self.members[at as usize].0 == *key;
        let found = self.index.find(hash, is_key).copied();
        match found {
            Some(at) if null_deletes && value.is_null() => self.remove(at, hash),
            Some(at) => {
                let old = &mut self.members[at as usize].1;
                self.bytes = self.bytes + value.memory() - old.memory();
                *old = value.clone();
            }
            None if null_deletes && value.is_null() => {}
            None => {
                let member = (key.into(), value.clone());
                self.bytes += member_memory(&member) + PLACE_BYTES;
                let at = self.members.len() as u32;
                self.members.push(member);
                let (members, hasher) = (&self.members, &self.hasher);
                let rehash = |&at: &u32| hasher.hash_one(&*members[at as usize].0);
                self.index.insert_unique(hash, at, rehash);
            }
        }
    }

    /// Removes a member; the last one takes its position.
    fn remove(&mut self, at: u32, hash: u64) {
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == at) {
            entry.remove();
        }
        let removed = self.members.swap_remove(at as usize);
        self.bytes -= member_memory(&removed) + PLACE_BYTES;
        if let Some((key, _)) = self.members.get(at as usize) {
            let last = self.members.len() as u32;
            let hash = self.hasher.hash_one(&**key);
            if let Some(place) = self.index.find_mut(hash, |&other| other == last) {
                *place = at;
            }
        }
    }
}

/// Elements since the last clearing one.
#[derive(Debug, Default)]
struct Log {
    elements: VecDeque<Value>,
    bytes: usize,
}

impl Log {
    fn of(whole: Option<&Value>, clears: Clears) -> Log {
        let mut log = Log::default();
        log.push_all(whole.and_then(Value::elements).unwrap_or_default(), clears);
        log
    }

    fn push_all(&mut self, elements: &[Value], clears: Clears) {
        // Elements before the last clearing one need not be copied.
        let last = elements.iter().rposition(|element| is_clear(element, clears));
        if last.is_some() {
            *self = Log::default();
        }
        for element in &elements[last.unwrap_or_default()..] {
            self.bytes += element.memory();
            self.elements.push_back(element.clone());
        }
    }

    /// Removes the oldest elements beyond `max`. Returns their number.
    fn trim(&mut self, max: usize, clears: Clears) -> u64 {
        let mut lost = 0;
        while self.elements.len() > max.max(1) || self.bytes > PICTURE_BYTES {
            let keeps_first = self.elements.len() > 1
                && self.elements.front().is_some_and(|it| is_clear(it, clears));
            match self.elements.remove(usize::from(keeps_first)) {
                Some(removed) => self.bytes -= removed.memory(),
                None => break,
            }
            lost += 1;
        }
        lost
    }
}

fn is_clear(element: &Value, clears: Clears) -> bool {
    let says = |(key, text): &(&str, &str)| element.get(key).and_then(Value::as_text) == Some(text);
    matches!(element, Value::Map(_)) && clears.iter().any(says)
}

#[cfg(feature = "zenith")]
#[cfg(test)]
pub(super) mod tests;
