//! Tests of the exchange with another process: what is proposed, what is sent back, and what is
//! handed over.

use super::*;
use crate::hub::relay::{KeptChannel, OrderedEvent, RelayDeparture, RelayRole, RelayedEvent};

const NAME: &str = "chat-1";
const LIMIT: HistoryLimit = HistoryLimit { max: 5, ttl_s: 10, bytes: 1000 };

/// A process with one core and one application.
struct Process {
    hub: Hub,
    mail: OutgoingMail,
}

impl Process {
    fn new(seed: u64) -> Process {
        let mut hub = Hub::new(0, 1, Hasher::new(seed), 100_000);
        hub.bound_channels([usize::MAX].into());
        Process { hub, mail: OutgoingMail::new(1) }
    }

    fn with(seed: u64, role: RelayRole) -> Process {
        let mut process = Process::new(seed);
        process.hub.begin_relay(role);
        process
    }

    fn publish(&mut self, app: u32, mut event: Event, now_ms: u64) -> Published {
        self.hub.publish(app, NAME, &mut event, None, now_ms, &mut self.mail)
    }

    fn proposed(&mut self) -> Option<Event> {
        match self.hub.next_departure()? {
            RelayDeparture::Proposed(proposal) => Some(proposal.event),
            other => panic!("{other:?}"),
        }
    }

    fn ordered(&mut self) -> Option<Box<OrderedEvent<()>>> {
        match self.hub.next_departure()? {
            RelayDeparture::Ordered(ordered) => Some(ordered),
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, mut event: Event, relayed: RelayedEvent, now_ms: u64) {
        let mail = &mut self.mail;
        self.hub.apply_relayed((0, NAME), &mut event, relayed, now_ms, mail);
        self.hub.invariants();
    }

    /// The texts of the history, and the position of the last event.
    fn history(&self) -> (Vec<String>, Option<StreamPosition>) {
        let kept = self.hub.kept_of(&self.hub.name(0, NAME), 0);
        let history = kept.and_then(|kept| kept.history);
        let text = |(frame, _): &(Frozen, u64)| String::from_utf8_lossy(frame).into_owned();
        let texts = history.iter().flat_map(|it| it.events.iter().map(text)).collect();
        (texts, history.map(|it| it.position))
    }

    fn all_kept(&self, now_ms: u64) -> Vec<KeptChannel> {
        let names = self.hub.kept_channels();
        names.iter().filter_map(|name| self.hub.kept_of(name, now_ms)).collect()
    }
}

fn plain(text: &str) -> Event {
    Frozen::new(text.as_bytes()).into()
}

fn kept(text: &str) -> Event {
    Event { retain: Retention::History(LIMIT), ..plain(text) }
}

fn cached(text: &str, ttl_ms: u64) -> Event {
    let entry = CacheEntry { ttl_ms, event: "e".into(), data: text.into() };
    Event { retain: Retention::Cache(Arc::new(entry)), ..plain(text) }
}

#[test]
fn relay_replaced_process_proposes_what_the_other_one_can_order() {
    let mut old = Process::with(1, RelayRole::Replaced);
    for event in [
        plain("a"),
        kept("b"),
        cached("c", 9),
        Event { payload: EventPayload::Close(4009, ""), ..plain("") },
    ] {
        assert_eq!(old.publish(0, event, 0), Published::Sent);
    }
    assert_eq!((old.hub.departure_count(), old.hub.proposal_count()), (4, 4));
    // What other dialects publish stays in its process.
    assert_eq!(old.publish(1, plain("another application"), 0), Published::NotSubscribed);
    assert_eq!(old.publish(u32::MAX, plain("none"), 0), Published::NotSubscribed);
    assert_eq!(old.publish(0, Event::message(()), 0), Published::NotSubscribed);
    assert_eq!(old.publish(0, Event::clear(), 0), Published::NotSubscribed);
    let texts: Vec<_> = std::iter::from_fn(|| old.proposed()).collect();
    assert_eq!(texts.len(), 4);
    assert_eq!(texts[0].frame().map(|it| &**it), Some(&b"a"[..]));
    assert_eq!(old.history(), (Vec::new(), None), "nothing is ordered");
    // Without the other process, it orders again.
    let suspended = old.hub.suspend_relay();
    assert_eq!(old.publish(0, plain("d"), 0), Published::NotSubscribed);
    old.hub.resume_relay(suspended);
    assert_eq!(old.publish(0, plain("e"), 0), Published::Sent);
    assert_eq!(old.hub.end_relay().len(), 1);
    assert_eq!(old.publish(0, kept("f"), 0), Published::Ordered(0));
    old.hub.invariants();
}

#[test]
fn relay_replacement_sends_back_what_it_orders() {
    let mut new = Process::with(1, RelayRole::Replacement);
    assert_eq!(new.publish(0, plain("a"), 0), Published::NotSubscribed);
    let bytes = new.hub.ordered_bytes();
    assert_eq!(new.publish(1, plain("another application"), 0), Published::NotSubscribed);
    assert_eq!(new.publish(0, Event::message(()), 0), Published::NotSubscribed);
    assert_eq!((new.hub.departure_count(), new.hub.proposal_count()), (1, 0));
    assert_eq!((bytes, new.hub.ordered_bytes()), (129, 129), "one byte, and 128 for the rest");
    let ordered = new.ordered().unwrap();
    assert_eq!((ordered.name.text(), ordered.position, ordered.number), (NAME, None, None));
    // One of the other process, and then one of this one.
    new.apply(kept("b"), RelayedEvent { number: Some(7), position: None }, 0);
    new.publish(0, kept("c"), 0);
    let (first, second) = (new.ordered().unwrap(), new.ordered().unwrap());
    assert_eq!((first.number, second.number), (Some(7), None));
    let (first, second) = (first.position.unwrap(), second.position.unwrap());
    assert_eq!((first.serial, second.serial), (1, 2));
    assert_eq!(new.history(), (vec!["b".to_owned(), "c".to_owned()], Some(second)));
}

#[test]
fn relay_replaced_process_has_the_positions_of_the_other_one() {
    let mut old = Process::with(1, RelayRole::Replaced);
    let position = |serial| StreamPosition { stream: 9, serial };
    let at = |serial| RelayedEvent { position: Some(position(serial)), number: None };
    old.apply(kept("a"), at(5), 0);
    old.apply(kept("b"), at(6), 0);
    let texts = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    assert_eq!(old.history(), (texts(&["a", "b"]), Some(position(6))));
    // A history that has gone on differently is dropped: it must not show a gap as if it were none.
    old.apply(kept("c"), at(8), 0);
    assert_eq!(old.history(), (texts(&["c"]), Some(position(8))));
    old.apply(
        kept("d"),
        RelayedEvent { position: Some(StreamPosition { stream: 3, serial: 1 }), number: None },
        0,
    );
    assert_eq!(old.history(), (texts(&["d"]), Some(StreamPosition { stream: 3, serial: 1 })));
    old.hub.sweep(20_000);
    assert_eq!(old.hub.kept_bytes(), 0);
}

#[test]
fn relay_hands_over_what_is_kept() {
    let mut old = Process::new(1);
    for text in ["a", "b", "c", "d", "e", "f"] {
        old.publish(0, kept(text), 1000);
    }
    old.publish(0, cached("cached", 5000), 1000);
    old.publish(1, cached("another application", 5000), 1000);
    let (texts, position) = old.history();
    assert_eq!(texts.len(), 5);
    // A clock of its own, and three seconds later.
    let mut new = Process::with(2, RelayRole::Replacement);
    let handed = old.all_kept(4000);
    assert_eq!(handed.len(), 1, "one channel of this application");
    for kept in handed {
        new.hub.adopt(kept, Some(LIMIT), true, 70);
    }
    new.hub.invariants();
    assert_eq!(new.history(), (texts, position));
    let left = new.all_kept(70).remove(0);
    assert_eq!(left.cached.map(|(_, entry)| entry.ttl_ms), Some(2000));
    assert_eq!(left.history.map(|it| it.events[0].1), Some(7000));
    assert!(new.hub.kept_events() == 1 && new.hub.departure_count() == 0, "nobody gets it again");
    // Both expire when they would have.
    let at = |now_ms| {
        new.all_kept(now_ms)
            .pop()
            .map(|it| (it.cached.is_some(), it.history.is_some_and(|it| !it.events.is_empty())))
    };
    assert_eq!((at(2069), at(2070)), (Some((true, true)), Some((false, true))));
    assert_eq!((at(7069), at(7070)), (Some((false, true)), Some((false, false))));
    new.hub.sweep(30_000);
    assert_eq!((new.hub.kept_bytes(), new.hub.kept_events()), (0, 0));
}

#[test]
fn relay_hands_over_no_history_that_the_new_configuration_does_not_have() {
    let mut old = Process::new(1);
    old.publish(0, kept("a"), 0);
    for limit in [None, Some(HistoryLimit { ttl_s: 0, ..LIMIT })] {
        let mut new = Process::with(2, RelayRole::Replacement);
        old.all_kept(0).into_iter().for_each(|kept| new.hub.adopt(kept, limit, false, 0));
        assert_eq!((new.history(), new.hub.channel_count()), ((Vec::new(), None), 0));
    }
}

#[test]
fn relay_adopted_history_goes_on_in_its_stream() {
    let mut old = Process::new(1);
    (0..3).for_each(|_| _ = old.publish(0, kept("x"), 0));
    let before = old.history().1.unwrap();
    let mut new = Process::with(2, RelayRole::Replacement);
    old.all_kept(0).into_iter().for_each(|kept| new.hub.adopt(kept, Some(LIMIT), false, 0));
    new.publish(0, kept("y"), 0);
    assert_eq!(new.history().1, Some(StreamPosition { serial: before.serial + 1, ..before }));
    // The next history of another channel has a stream of its own.
    let mut event = kept("z");
    new.hub.publish(0, "chat-2", &mut event, None, 0, &mut new.mail);
    let other = new.hub.kept_of(&new.hub.name(0, "chat-2"), 0).and_then(|it| it.history).unwrap();
    assert!(other.position.stream != before.stream && other.position.serial == 1);
}
