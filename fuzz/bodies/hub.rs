//! Operations on several hubs, with mail that is late, against a list of the subscriptions.

use super::Script;
use polycast::dialect::{Down, Event, Hub, Join, OutgoingMail, Up};
use polycast::hub::{Ack, Form, Hasher, Joined, Published};
use polycast::mem::{Frozen, Slot};
use std::collections::{BTreeSet, HashMap, VecDeque};

const CORES: u16 = 3;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MAX_MEMBERS: usize = 3;
const NOW_MS: u64 = 1000;

/// (core, slot, channel)
type Member = (u16, u32, usize);

struct World {
    hubs: Vec<Hub>,
    outgoing: Vec<OutgoingMail>,
    up: HashMap<(u16, u16), VecDeque<Up>>,
    down: HashMap<(u16, u16), VecDeque<Down>>,
    /// The subscriptions that were requested from the hub.
    members: BTreeSet<Member>,
    /// Those of them that were confirmed.
    joined: BTreeSet<Member>,
    /// What each confirmed subscription has received since, by the publish's number.
    received: HashMap<Member, Vec<u64>>,
    /// The publishes that were acknowledged.
    acked: BTreeSet<u64>,
    /// Publishes made while the subscription was confirmed, which it must receive.
    due: HashMap<Member, Vec<u64>>,
    publishes: u64,
}

pub(crate) fn run(data: &[u8]) {
    let hasher = Hasher::new(1);
    let mut world = World {
        hubs: (0..CORES).map(|core| Hub::new(core, CORES, hasher.clone(), 0)).collect(),
        outgoing: (0..CORES).map(|_| OutgoingMail::new(CORES)).collect(),
        up: HashMap::new(),
        down: HashMap::new(),
        members: BTreeSet::new(),
        joined: BTreeSet::new(),
        received: HashMap::new(),
        acked: BTreeSet::new(),
        due: HashMap::new(),
        publishes: 0,
    };
    let mut script = Script(data);
    while let (Some(op), Some(who)) = (script.byte(), script.byte()) {
        let core = u16::from(who) % CORES;
        let member = (core, u32::from(who >> 2) % 5, usize::from(who >> 6));
        match op % 8 {
            0..2 => world.join(member),
            2 => world.leave(member),
            3 => world.drop_connection(core, member.1),
            4 => world.publish(core, member.2),
            _ => world.mail(core, u16::from(op >> 3) % CORES, usize::from(op >> 6) + 1),
        }
    }
    world.end();
}

impl World {
    fn join(&mut self, member: Member) {
        let (core, slot, channel) = member;
        let count = self.members.iter().filter(|it| (it.0, it.1) == (core, slot)).count();
        let at = usize::from(core);
        let slot = Slot { index: slot, generation: 1 };
        let join = Join {
            slot,
            app: 0,
            name: NAMES[channel],
            max: MAX_MEMBERS,
            is_public: false,
            request: None,
            form: Form::PUBLISHED,
        };
        let got = self.hubs[at].join(join, NOW_MS, &mut self.outgoing[at]);
        if self.members.contains(&member) {
            return assert!(matches!(got, Joined::Already));
        }
        if count == MAX_MEMBERS {
            return assert!(matches!(got, Joined::SubscriptionLimit));
        }
        self.members.insert(member);
        match got {
            Joined::Now(None) => self.message(member),
            Joined::Later => {}
            other => panic!("{other:?}"),
        }
    }

    fn message(&mut self, member: Member) {
        assert!(self.members.contains(&member), "{member:?} was told after it left");
        assert!(self.joined.insert(member), "{member:?} was told twice");
        self.received.insert(member, Vec::new());
        self.due.insert(member, Vec::new());
    }

    fn forget(&mut self, member: Member) {
        self.members.remove(&member);
        self.joined.remove(&member);
        self.received.remove(&member);
        self.due.remove(&member);
    }

    fn leave(&mut self, member: Member) {
        let at = usize::from(member.0);
        let slot = Slot { index: member.1, generation: 1 };
        let left = self.hubs[at].leave(slot, 0, NAMES[member.2], &mut self.outgoing[at]);
        assert_eq!(left, self.members.contains(&member));
        self.forget(member);
    }

    fn drop_connection(&mut self, core: u16, slot: u32) {
        let at = usize::from(core);
        let name = Slot { index: slot, generation: 1 };
        let left = self.hubs[at].leave_all(name, &mut self.outgoing[at]);
        let mine: Vec<Member> =
            self.members.iter().filter(|it| (it.0, it.1) == (core, slot)).copied().collect();
        assert_eq!(left, mine.len());
        mine.into_iter().for_each(|member| self.forget(member));
    }

    fn publish(&mut self, core: u16, channel: usize) {
        let number = self.publishes;
        self.publishes += 1;
        for (member, due) in &mut self.due {
            if member.2 == channel {
                due.push(number);
            }
        }
        let mut event = Event::from(Frozen::new(&number.to_le_bytes()));
        let ack = Ack { slot: Slot { index: 0, generation: 1 }, ticket: number as u32, part: 0 };
        let at = usize::from(core);
        let outgoing = &mut self.outgoing[at];
        match self.hubs[at].publish(0, NAMES[channel], &mut event, Some(ack), NOW_MS, outgoing) {
            Published::Ordered(place) => {
                let slots = self.hubs[at].subscribers_at(place).iter().map(|it| it.slot).collect();
                self.hear(core, slots, channel, &event);
                self.acked.insert(number);
            }
            Published::NotSubscribed => {
                self.acked.insert(number);
            }
            Published::Sent => {}
        }
    }

    fn hear(&mut self, core: u16, slots: Vec<u32>, channel: usize, event: &Event) {
        let number = event
            .frame()
            .and_then(|frame| frame.first_chunk())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        for slot in slots {
            let member = (core, slot, channel);
            let received = self.received.get_mut(&member);
            let received = received.unwrap_or_else(|| panic!("{member:?} hears and is not joined"));
            assert!(!received.contains(&number), "{member:?} hears {number} twice");
            received.push(number);
        }
    }

    /// Puts mail on its way from `from` to `to` and lets `count` of each queue arrive.
    fn mail(&mut self, from: u16, to: u16, count: usize) {
        let queues = self.outgoing[usize::from(from)].to(to);
        self.up.entry((from, to)).or_default().extend(queues.up.drain(..));
        self.down.entry((from, to)).or_default().extend(queues.down.drain(..));
        let at = usize::from(to);
        for _ in 0..count {
            let Some(up) = self.up.entry((from, to)).or_default().pop_front() else { break };
            if let Some((name, event)) =
                self.hubs[at].request(from, up, NOW_MS, &mut self.outgoing[at])
            {
                let slots = self.hubs[at].subscribers(&name).iter().map(|it| it.slot).collect();
                self.hear(to, slots, channel(name.text()), &event);
            }
        }
        for _ in 0..count {
            match self.down.entry((from, to)).or_default().pop_front() {
                None => break,
                Some(Down::Interested { request_id, name, .. }) => {
                    let message: Vec<u32> = self.hubs[at]
                        .interested(request_id, &name)
                        .iter()
                        .map(|it| it.slot)
                        .collect();
                    message
                        .into_iter()
                        .for_each(|slot| self.message((to, slot, channel(name.text()))));
                }
                Some(Down::Deliver { name, event }) => {
                    let slots = self.hubs[at].subscribers(&name).iter().map(|it| it.slot).collect();
                    self.hear(to, slots, channel(name.text()), &event);
                }
                Some(Down::JoinReply { .. }) => panic!("nobody wished for anything"),
                Some(Down::Message { .. }) => panic!("nobody has said anything"),
                Some(Down::LogBegan { .. }) => panic!("there is no log"),
                Some(Down::Answer { ack, .. }) => {
                    self.acked.insert(ack.ticket.into());
                }
            }
        }
    }

    fn all_mail(&mut self) {
        for (hub, outgoing) in self.hubs.iter_mut().zip(&mut self.outgoing) {
            hub.report_counts(outgoing);
        }
        // Up mail, then down mail, then the mail that the down mail has caused.
        for _ in 0..3 {
            for pair in 0..CORES * CORES {
                self.mail(pair / CORES, pair % CORES, usize::MAX);
            }
        }
    }

    fn end(mut self) {
        self.all_mail();
        for (channel, name) in NAMES.iter().enumerate() {
            let count = self.members.iter().filter(|member| member.2 == channel).count() as u64;
            let channel_info =
                self.hubs.iter().map(|hub| hub.channel_info(&hub.name(0, name), NOW_MS));
            let max = channel_info.map(|channel_info| channel_info.subscriptions).max();
            assert_eq!(max, Some(count), "the home of {name} counts all");
        }
        assert_eq!(self.members, self.joined, "everybody was told");
        assert_eq!(self.acked.len() as u64, self.publishes, "every publish has its place");
        let mut next: HashMap<(usize, u64), u64> = HashMap::new();
        for (member, received) in &self.received {
            for number in &self.due[member] {
                assert!(received.contains(number), "{member:?} has missed {number}");
            }
            for pair in received.windows(2) {
                let next = *next.entry((member.2, pair[0])).or_insert(pair[1]);
                assert_eq!(next, pair[1], "{member:?} behind {}", pair[0]);
            }
        }
        for core in 0..CORES {
            (0..5).for_each(|slot| self.drop_connection(core, slot));
        }
        self.all_mail();
        assert!(self.hubs.iter().all(|hub| hub.channel_count() == 0), "a channel is left");
        assert!(self.outgoing.iter().all(OutgoingMail::is_empty), "mail is left");
    }
}

fn channel(name: &str) -> usize {
    NAMES.iter().position(|it| *it == name).expect("one of the names")
}
