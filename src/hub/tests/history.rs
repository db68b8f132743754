//! Tests of histories: which events a new member of a group gets, and that later events follow them
//! without a gap.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const NAME: &str = "group";
const MAX_BYTES: u32 = 3;

fn event(text: &str) -> Event {
    let retain = Retention::History(HistoryLimit { max: MAX_BYTES, ttl_s: 0, bytes: 1000 });
    Event { retain, ..Frozen::new(text.as_bytes()).into() }
}

fn join(index: u32) -> Join<'static> {
    let request = Some(JoinRequest { history: true, ..JoinRequest::default() });
    Join {
        slot: slot(index),
        app: 0,
        name: NAME,
        max: 100,
        is_public: false,
        request,
        form: Form::PUBLISHED,
    }
}

fn texts(history: &[SharedFrame]) -> Vec<String> {
    history.iter().map(|entry| String::from_utf8_lossy(&entry.frame).into_owned()).collect()
}

/// A hub of a process with one core, and one member.
fn alone(kept_max: usize) -> (Hub, OutgoingMail) {
    let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), kept_max), OutgoingMail::new(1));
    assert_eq!(reply(&mut hub, &mut mail, 0), [""; 0]);
    (hub, mail)
}

fn reply(hub: &mut Hub, mail: &mut OutgoingMail, index: u32) -> Vec<String> {
    let Joined::Now(Some(reply)) = hub.join(join(index), NOW_MS, mail) else {
        panic!("one core joins at once");
    };
    texts(&reply.history)
}

fn publish(hub: &mut Hub, mail: &mut OutgoingMail, text: &str) {
    hub.publish(0, NAME, &mut event(text), None, NOW_MS, mail);
}

#[test]
fn history_ends_with_its_group() {
    let (mut hub, mut mail) = alone(1 << 20);
    ["a", "b", "c", "d"].iter().for_each(|text| publish(&mut hub, &mut mail, text));
    assert_eq!(reply(&mut hub, &mut mail, 1), ["b", "c", "d"]);
    assert!(hub.kept_bytes() > 3);
    assert!(hub.leave(slot(0), 0, NAME, &mut mail));
    assert_eq!(reply(&mut hub, &mut mail, 2), ["b", "c", "d"], "a member is left");
    assert!(hub.leave(slot(1), 0, NAME, &mut mail) && hub.leave(slot(2), 0, NAME, &mut mail));
    assert_eq!((hub.kept_bytes(), hub.channel_count(), hub.picture_count()), (0, 0, 0));
    // Without a subscriber nothing is kept.
    publish(&mut hub, &mut mail, "e");
    assert_eq!((hub.kept_bytes(), hub.channel_count()), (0, 0));
    assert_eq!(reply(&mut hub, &mut mail, 3), [""; 0]);
    assert_eq!(hub.losses(), Losses::default());
}

#[test]
fn history_goes_only_to_those_who_request_it() {
    let (mut hub, mut mail) = alone(1 << 20);
    publish(&mut hub, &mut mail, "a");
    let silent = Join { request: Some(JoinRequest::default()), ..join(1) };
    let Joined::Now(Some(reply)) = hub.join(silent, NOW_MS, &mut mail) else { panic!() };
    assert!(reply.history.is_empty());
}

#[test]
fn history_without_room_is_dropped_and_counted() {
    let (mut hub, mut mail) = alone(1 << 20);
    publish(&mut hub, &mut mail, "a");
    hub.kept.max_bytes = hub.kept_bytes();
    hub.sweep(NOW_MS);
    assert_eq!((reply(&mut hub, &mut mail, 1), hub.losses().kept), (vec!["a".to_owned()], 0));
    publish(&mut hub, &mut mail, "b");
    assert_eq!((hub.kept_bytes(), hub.losses().kept), (0, 1));
    hub.kept.max_bytes = 1 << 20;
    publish(&mut hub, &mut mail, "c");
    assert_eq!(reply(&mut hub, &mut mail, 2), ["c"]);
    publish(&mut hub, &mut mail, &"d".repeat(1001));
    assert_eq!(hub.losses(), Losses { kept: 0, elements: 2 });
    assert_eq!(reply(&mut hub, &mut mail, 3), [""; 0]);
}

/// A group with members on several cores, whose mail is delivered in any order.
struct Group {
    cores: Cores,
    /// The events that each member has got since its join reply, and the events that it should have
    /// got.
    members: HashMap<(u16, u32), Member>,
    home: u16,
    /// The model: the events that the home has ordered since the group began, and the subscribers.
    ordered: Vec<String>,
    local: BTreeSet<u32>,
    interested: BTreeSet<u16>,
    client_event: u32,
}

#[derive(Default)]
struct Member {
    received: Option<Vec<String>>,
    /// The index in `ordered` at which the member's history begins, known when the home has handled
    /// the join request.
    from: Option<usize>,
}

impl Group {
    fn new(cores: u16, seed: u64) -> Group {
        let cores = Cores::new(cores, seed, 1 << 20);
        let home = cores.home(NAME);
        let (local, interested) = (BTreeSet::new(), BTreeSet::new());
        let (members, ordered) = (HashMap::new(), Vec::new());
        Group { cores, members, home, ordered, local, interested, client_event: 0 }
    }

    fn from(&self) -> usize {
        self.ordered.len().saturating_sub(MAX_BYTES as usize)
    }

    fn ends(&mut self) {
        if self.local.is_empty() && self.interested.is_empty() {
            self.ordered.clear();
        }
    }

    fn toggle(&mut self, core: u16, index: u32) {
        let (hub, mail) = self.cores.at(core);
        if let Some(member) = self.members.remove(&(core, index)) {
            assert!(hub.leave(slot(index), 0, NAME, mail));
            if core == self.home {
                self.local.remove(&index);
            }
            self.check(&member, false);
            return self.ends();
        }
        let mut member = Member::default();
        match hub.join(join(index), NOW_MS, mail) {
            Joined::Now(reply) => {
                member.received = reply.map(|it| texts(&it.history));
                member.from = Some(self.from());
                self.local.insert(index);
            }
            Joined::Later => {}
            other => panic!("{other:?}"),
        }
        self.members.insert((core, index), member);
    }

    /// Checks that a member has got the events of the model from its `from` on: all of them if
    /// `whole` is set, else the first ones, because mail may still be on its way.
    fn check(&self, member: &Member, whole: bool) {
        let (Some(received), Some(from)) = (&member.received, member.from) else {
            return assert!(!whole, "a member was never let in");
        };
        let expected = &self.ordered[from..];
        match whole {
            true => assert_eq!(received, expected),
            false => assert!(expected.starts_with(received), "{received:?} of {expected:?}"),
        }
    }

    fn publish(&mut self, core: u16) {
        self.client_event += 1;
        let mut event = event(&self.client_event.to_string());
        let (hub, mail) = self.cores.at(core);
        if let Published::Ordered(_) = hub.publish(0, NAME, &mut event, None, NOW_MS, mail) {
            self.ordered(&event);
            self.deliver(core, &event);
        }
    }

    fn ordered(&mut self, event: &Event) {
        self.ordered.extend(String::from_utf8(event.frame().expect("a frame").to_vec()));
        self.ends();
    }

    fn deliver(&mut self, core: u16, event: &Event) {
        let name = self.cores.hubs[core as usize].name(0, NAME);
        for it in
            self.cores.hubs[core as usize].subscribers(&name).iter().filter(|it| it.is_active())
        {
            let member = self.members.get_mut(&(core, it.slot)).expect("a member");
            let received = member.received.as_mut().expect("a welcome before all else");
            received.extend(String::from_utf8(event.frame().expect("a frame").to_vec()));
        }
    }

    /// Delivers the first message of one mailbox, which `pick` selects. Returns false if all are
    /// empty.
    fn carry(&mut self, pick: usize) -> bool {
        match self.cores.take(pick) {
            Some((from, to, Mail::Up(up))) => self.up(from, to, up),
            Some((_, to, Mail::Down(down))) => self.down(to, down),
            None => return false,
        }
        true
    }

    fn up(&mut self, from: u16, to: u16, up: Up) {
        match &up {
            Up::Publish { event, .. } => self.ordered(&event.clone()),
            Up::Join { slot, request_id, .. } => {
                let from_here = self.from();
                self.interested.insert(from);
                // The answer to an older request is for no present member.
                let (at, request_id) = ((from, slot.index), *request_id);
                if self.cores.hubs[from as usize].last_request_id(at.1) == Some(request_id)
                    && let Some(member) = self.members.get_mut(&at)
                {
                    member.from = Some(from_here);
                }
            }
            Up::Forget { .. } => {
                self.interested.remove(&from);
                self.ends();
            }
            _ => {}
        }
        let (hub, mail) = self.cores.at(to);
        if let Some((_, event)) = hub.request(from, up, NOW_MS, mail) {
            self.deliver(to, &event);
        }
    }

    fn down(&mut self, to: u16, down: Down) {
        match down {
            Down::Deliver { event, .. } => self.deliver(to, &event),
            Down::JoinReply { request_id, slot, name, reply } => {
                let (hub, mail) = self.cores.at(to);
                if hub.on_join_reply(request_id, slot, &name, true, mail) {
                    let member = self.members.get_mut(&(to, slot.index)).expect("a member");
                    member.received = reply.ok().map(|it| texts(&it.history));
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Hub {
    /// The unanswered request of a connection's only subscription.
    fn last_request_id(&self, index: u32) -> Option<u32> {
        let at = self.find(0, NAME, self.hasher.hash(0, NAME))?;
        let channel = self.channels[at as usize].as_ref()?;
        let it = channel.subscribers.iter().find(|it| it.slot == index)?;
        Some(it.request_id())
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Toggle(u16, u32),
    Publish(u16),
    Carry(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_u16, 0..4_u32).prop_map(|(core, at)| Step::Toggle(core, at)),
        4 => (0..3_u16).prop_map(Step::Publish),
        8 => any::<usize>().prop_map(Step::Carry),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn history_late_member_gets_the_last_events_and_each_later_one_once(
        cores in 1..4_u16,
        seed in 0..8_u64,
        steps in steps(),
    ) {
        let mut world = Group::new(cores, seed);
        for step in steps {
            match step {
                Step::Toggle(core, at) => world.toggle(core % cores, at),
                Step::Publish(core) => world.publish(core % cores),
                Step::Carry(pick) => {
                    world.carry(pick);
                }
            }
        }
        while world.carry(0) {}
        world.members.values().for_each(|member| world.check(member, true));
        let bytes = |hub: &Hub| {
            let homes = hub.channels.iter().flatten().filter_map(|it| it.home.as_ref());
            homes.filter_map(|home| Some(home.history.as_ref()?.memory())).sum::<usize>()
        };
        for hub in &world.cores.hubs {
            prop_assert_eq!(hub.kept.bytes, bytes(hub), "what is held is what is counted");
        }
        for (core, at) in world.members.keys().copied().collect::<Vec<_>>() {
            world.toggle(core, at);
        }
        while world.carry(0) {}
        for hub in &world.cores.hubs {
            prop_assert_eq!((hub.kept_bytes(), hub.channel_count()), (0, 0));
        }
    }
}
