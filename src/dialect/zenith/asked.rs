//! What one back end is asked and has not answered, and how much of that each client may have.
//!
//! A back end is not closed because clients ask much: the question that would be too much is
//! answered with an error, and only the client that asks it is told so. A client may have twice
//! what it leaves free, and an eighth of the room is for clients of which next to nothing waits.

use super::APP;
use super::messages::{Call, CallOutcome, ZenithMessage, to_message};
use super::topics::unavailable;
use super::wire;
use crate::dialect::Effect;
use crate::hub::ConnId;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Questions that one back end may have unanswered.
const ASKED_MAX: usize = 65_536;

/// Which part of the room is left to clients of which next to nothing waits.
const RESERVE: usize = 8;
/// Which part of the room is next to nothing: by default 4 KiB of 3 MiB.
const SMALL: usize = 768;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct AskedCalls {
    /// By the number that the back end knows.
    by_number: BTreeMap<i64, AskedCall>,
    by_client: HashMap<ConnId, ClientShare>,
    last: i64,
    /// The questions that wait to be written, in order: whose, and their bytes.
    unwritten: VecDeque<(ConnId, usize)>,
    unwritten_bytes: usize,
}

/// What one client has of it.
#[derive(Default)]
struct ClientShare {
    /// The numbers of its questions, by those of its calls.
    numbers: HashMap<u32, i64>,
    unwritten_bytes: usize,
}

impl ClientShare {
    fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.unwritten_bytes == 0
    }
}

/// One question.
pub(super) struct AskedCall {
    from: ConnId,
    call: u32,
    pub(super) controller: Box<str>,
    topic: Box<str>,
}

impl AskedCall {
    pub(super) fn of(call: &Call) -> AskedCall {
        AskedCall {
            from: call.from,
            call: call.call,
            controller: call.controller.clone(),
            topic: call.topic.clone(),
        }
    }

    /// The answer, in the order of the topic: after data that was published before, and before
    /// data that is published later.
    pub(super) fn answer(&self, outcome: CallOutcome) -> Effect {
        let what = to_message(ZenithMessage::Answer { call: self.call, outcome });
        let name = wire::channel(&self.controller, &self.topic);
        Effect::TellBehind { app: APP, name, to: self.from, what }
    }

    /// The answer when the back end is not there any more.
    pub(super) fn unavailable(&self) -> Effect {
        self.answer(CallOutcome::failed(&unavailable(&self.controller)))
    }
}

/// Whether somebody who has `own` of something, of which `free` is left, may have that much.
fn is_fair(own: usize, free: usize) -> bool {
    own <= 2 * free
}

impl AskedCalls {
    /// Whether `from` may ask a question of so many bytes. `waiting` bytes wait to be written to
    /// the back end, and `bound` may.
    pub(super) fn has_room(
        &mut self,
        from: ConnId,
        bytes: usize,
        waiting: usize,
        bound: usize,
    ) -> bool {
        self.note_written(waiting);
        let share = self.by_client.get(&from);
        let (calls, unwritten) =
            share.map_or((0, 0), |share| (share.numbers.len(), share.unwritten_bytes));
        let waiting = waiting.max(self.unwritten_bytes);
        let free_calls = ASKED_MAX.checked_sub(self.by_number.len() + 1);
        if waiting + bytes > bound || free_calls.is_none_or(|free| !is_fair(calls + 1, free)) {
            return false;
        }
        // Where nothing waits, whatever fits the bound is taken.
        let is_little = waiting == 0 || unwritten + bytes <= bound / SMALL;
        let free = (bound - bound / RESERVE).checked_sub(waiting + bytes);
        is_little || free.is_some_and(|free| is_fair(unwritten + bytes, free))
    }

    /// Notes what has been written since: the first in the queue leave it first.
    fn note_written(&mut self, waiting: usize) {
        while let Some(&(from, bytes)) = self.unwritten.front()
            && self.unwritten_bytes - bytes >= waiting
        {
            self.unwritten.pop_front();
            self.unwritten_bytes -= bytes;
            if let Some(share) = self.by_client.get_mut(&from) {
                share.unwritten_bytes -= bytes;
                if share.is_empty() {
                    self.by_client.remove(&from);
                }
            }
        }
    }

    /// The number of the next question.
    pub(super) fn next_number(&self) -> i64 {
        self.last + 1
    }

    /// The next question is asked, in a frame of so many bytes.
    pub(super) fn insert(&mut self, asked: AskedCall, bytes: usize) {
        self.last += 1;
        let share = self.by_client.entry(asked.from).or_default();
        share.numbers.insert(asked.call, self.last);
        share.unwritten_bytes += bytes;
        self.unwritten.push_back((asked.from, bytes));
        self.unwritten_bytes += bytes;
        self.by_number.insert(self.last, asked);
    }

    /// Takes out what was asked under a number.
    pub(super) fn remove(&mut self, number: i64) -> Option<AskedCall> {
        let asked = self.by_number.remove(&number)?;
        if let Some(share) = self.by_client.get_mut(&asked.from) {
            share.numbers.remove(&asked.call);
            if share.is_empty() {
                self.by_client.remove(&asked.from);
            }
        }
        Some(asked)
    }

    /// Takes out what was asked for a client's call, and says under which number.
    pub(super) fn forget(&mut self, from: ConnId, call: u32) -> Option<(i64, AskedCall)> {
        let number = *self.by_client.get(&from)?.numbers.get(&call)?;
        Some((number, self.remove(number)?))
    }

    /// Takes out everything, in the order in which it was asked.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = AskedCall> + use<> {
        std::mem::take(self).by_number.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Slot;

    fn conn(index: u32) -> ConnId {
        ConnId { core: 0, slot: Slot { index, generation: 1 } }
    }

    fn call(from: u32, call: u32) -> AskedCall {
        let (controller, topic) = ("M".into(), "Q".into());
        AskedCall { from: conn(from), call, controller, topic }
    }

    const BOUND: usize = 768_000;

    /// Asks as long as there is room; says how often, and what waits.
    fn fill(calls: &mut AskedCalls, from: u32, bytes: usize, mut waiting: usize) -> (usize, usize) {
        let mut asked = 0;
        while calls.has_room(conn(from), bytes, waiting, BOUND) {
            calls.insert(call(from, asked as u32), bytes);
            (asked, waiting) = (asked + 1, waiting + bytes);
        }
        (asked, waiting)
    }

    #[test]
    fn backend_share_leaves_room_for_the_next_client() {
        let mut calls = AskedCalls::default();
        let (asked, mut waiting) = fill(&mut calls, 1, 10_000, 0);
        assert_eq!(asked, 44, "twice what is left of seven eighths");
        for from in 2..50 {
            (_, waiting) = fill(&mut calls, from, 10_000, waiting);
        }
        assert!(waiting <= BOUND / 8 * 7 && !calls.has_room(conn(1), 10_000, waiting, BOUND));
        assert!(calls.has_room(conn(100), 1000, waiting, BOUND));
        assert!(!calls.has_room(conn(100), BOUND / 8 * 7 + 1 - waiting, waiting, BOUND));
        // What has been written makes room again.
        let (asked, _) = fill(&mut calls, 1, 10_000, 0);
        assert_eq!(asked, 44);
    }

    #[test]
    fn backend_share_takes_one_question_of_any_size_up_to_the_bound() {
        let mut calls = AskedCalls::default();
        assert!(calls.has_room(conn(1), BOUND, 0, BOUND));
        assert!(!calls.has_room(conn(1), BOUND + 1, 0, BOUND));
        calls.insert(call(1, 1), BOUND);
        assert!(!calls.has_room(conn(2), 1, BOUND, BOUND));
        assert!(!calls.has_room(conn(2), BOUND, 1, BOUND), "a part of it waits");
        assert!(calls.has_room(conn(2), BOUND, 0, BOUND));
    }

    #[test]
    fn backend_calls_are_bounded_on_both_sides() {
        let mut calls = AskedCalls::default();
        let room = |calls: &mut AskedCalls, from| calls.has_room(conn(from), 1, 0, BOUND);
        let mut asked = 0;
        while room(&mut calls, 1) {
            calls.insert(call(1, asked), 1);
            asked += 1;
        }
        // What is left is half of that.
        assert_eq!(asked as usize, ASKED_MAX * 2 / 3);
        assert!(room(&mut calls, 2));
        for at in 0..asked {
            assert!(calls.forget(conn(1), at).is_some());
        }
        assert!(calls.by_client.is_empty() && calls.by_number.is_empty());
    }

    #[test]
    fn backend_call_is_forgotten_once_whoever_forgets_it() {
        let mut calls = AskedCalls::default();
        calls.insert(call(1, 7), 10);
        calls.insert(call(2, 7), 10);
        assert!(calls.forget(conn(1), 8).is_none() && calls.forget(conn(3), 7).is_none());
        assert_eq!(calls.forget(conn(2), 7).map(|(number, _)| number), Some(2));
        assert!(calls.forget(conn(2), 7).is_none() && calls.remove(2).is_none());
        assert!(calls.remove(1).is_some() && calls.forget(conn(1), 7).is_none());
        calls.note_written(0);
        assert!(calls.by_client.is_empty(), "nothing is kept of a client that has nothing");
    }
}
