//! Several nodes, each with the hubs of its cores, that follow one log.

use super::*;
use crate::hub::tests::cores::Mail;
use crate::hub::{JoinReply, StateAuthor, StateProposal, StateTimes, Statement, Unpublished};
use std::collections::{BTreeMap, BTreeSet};

/// The maximum number of members of the channel `full`.
const FULL: usize = 3;
const TIMES: StateTimes = StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000 };

/// An entry of the log.
#[derive(Clone, Debug)]
enum Stated {
    State(u64, StateProposal<()>),
    /// The node has ended, says the other one.
    Ended(u64, u64),
}

/// A subscription of a connection: its core, its slot and the channel.
type Place = (u16, u32, String);

/// What a client knows of a channel.
#[derive(Debug)]
struct Client {
    user: String,
    /// The members, from the moment when it is subscribed.
    roster: Option<Vec<String>>,
}

struct Node {
    id: u64,
    cores: Cores,
    /// The number of entries that were applied.
    position: usize,
    /// What waits to be stored.
    proposals: Vec<StateProposal<()>>,
    clients: BTreeMap<Place, Client>,
    refused: Vec<(Place, JoinRefusal)>,
    events: Vec<ChannelEvent>,
    /// Whether the hubs keep their proposals for now.
    holds: bool,
    now_ms: u64,
}

fn user_member(user: &str, max: usize) -> JoinRequest {
    let frame = |text: String| Frozen::new(text.as_bytes()).into();
    let (added, removed) = (frame(format!("+{user}")), frame(format!("-{user}")));
    let member = Member { id: user.into(), info: Some("i".into()), added, removed, max };
    JoinRequest { member: Some(Box::new(member)), ..JoinRequest::default() }
}

impl Node {
    fn new(id: u64, cores: u16) -> Node {
        let mut cores = Cores::new(cores, id, MAX_KEPT);
        let all = EventMask::OCCUPANCY | EventMask::MEMBERS | EventMask::COUNTS;
        for hub in &mut cores.hubs {
            hub.follow_log(TIMES);
            hub.watch(Arc::from([all]), 0);
        }
        Node {
            id,
            cores,
            position: 0,
            proposals: Vec::new(),
            clients: BTreeMap::new(),
            refused: Vec::new(),
            events: Vec::new(),
            holds: false,
            now_ms: NOW_MS,
        }
    }

    fn join(&mut self, (core, index, name): (u16, u32, &str), user: &str) {
        let max = if name == "full" { FULL } else { 0 };
        let join = Join {
            slot: slot(index),
            app: 0,
            name,
            max: 9,
            is_public: false,
            request: Some(user_member(user, max)),
            form: Form::PUBLISHED,
        };
        let now_ms = self.now_ms;
        let (hub, mail) = self.cores.at(core);
        let place = (core, index, name.to_owned());
        let roster = match hub.join(join, now_ms, mail) {
            Joined::Later => None,
            Joined::Now(reply) => Some(names(reply.expect("a reply"))),
            Joined::Already => return,
            Joined::ChannelFull => {
                return self.refused.push((place, JoinRefusal::ChannelFull));
            }
            other => panic!("{other:?}"),
        };
        self.clients.insert(place, Client { user: user.to_owned(), roster });
        self.pump();
    }

    fn leave(&mut self, place: &Place) {
        let (hub, mail) = self.cores.at(place.0);
        assert!(hub.leave(slot(place.1), 0, &place.2, mail));
        self.clients.remove(place);
        self.pump();
    }

    /// Delivers everything between the cores, and takes what they propose and report.
    fn pump(&mut self) {
        loop {
            self.hear();
            for core in 0..self.cores.hubs.len() as u16 {
                let (hub, mail) = self.cores.at(core);
                hub.report_counts(mail);
            }
            match self.cores.take(0) {
                Some((from, to, Mail::Up(up))) => {
                    let now_ms = self.now_ms;
                    let (hub, mail) = self.cores.at(to);
                    assert!(hub.request(from, up, now_ms, mail).is_none());
                }
                Some((_, to, Mail::Down(down))) => self.answer(to, down),
                None => break,
            }
        }
        let now_ms = self.now_ms;
        for hub in &mut self.cores.hubs {
            if !self.holds {
                self.proposals.extend(std::iter::from_fn(|| hub.next_state(now_ms)));
            }
            let events = std::iter::from_fn(|| hub.next_channel_event());
            self.events.extend(events.filter(|it| it.is_ours));
        }
        self.cores.invariants();
    }

    /// Delivers the hubs' own events, and then their answers.
    fn hear(&mut self) {
        for core in 0..self.cores.hubs.len() {
            while let Some((name, event)) = self.cores.hubs[core].next_local() {
                self.deliver(core as u16, &name, &event);
            }
            while let Some(reply) = self.cores.hubs[core].next_reply() {
                self.answer(core as u16, reply);
            }
        }
    }

    fn answer(&mut self, to: u16, down: Down) {
        match down {
            Down::Deliver { name, event } => self.deliver(to, &name, &event),
            Down::JoinReply { request_id, slot, name, reply } => {
                let (hub, mail) = self.cores.at(to);
                if !hub.on_join_reply(request_id, slot, &name, reply.is_ok(), mail) {
                    return;
                }
                let place = (to, slot.index, name.text().to_owned());
                match reply {
                    Ok(reply) => {
                        let client = self.clients.get_mut(&place).expect("it waits");
                        client.roster = Some(names(reply));
                    }
                    Err(why) => {
                        self.clients.remove(&place);
                        self.refused.push((place, why));
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn deliver(&mut self, core: u16, name: &ChannelName, event: &Event) {
        let text = String::from_utf8_lossy(event.frame().expect("a frame")).into_owned();
        let (is_added, user) = (text.starts_with('+'), text[1..].to_owned());
        let subscribers = self.cores.hubs[core as usize].subscribers(name).to_vec();
        for subscriber in subscribers.iter().filter(|it| it.is_active()) {
            let place = (core, subscriber.slot, name.text().to_owned());
            let client = self.clients.get_mut(&place).expect("a client");
            let roster = client.roster.as_mut().expect("it was answered before");
            let known = roster.iter().position(|it| *it == user);
            match (is_added, known) {
                (true, None) => roster.push(user.clone()),
                (false, Some(at)) => drop(roster.remove(at)),
                _ => panic!("{place:?} hears {text} with {roster:?}"),
            }
        }
    }

    /// Applies the next entry of the log, if there is one.
    fn apply(&mut self, log: &[Stated]) -> bool {
        let Some(entry) = log.get(self.position) else { return false };
        self.position += 1;
        let now_ms = self.now_ms;
        match entry {
            Stated::State(node, StateProposal { app, name, state }) => {
                let author = StateAuthor { node: *node, is_ours: *node == self.id };
                let home = self.cores.home(name);
                let (hub, mail) = self.cores.at(home);
                match state {
                    Statement::Member { user, member } => {
                        let change = (user, member.as_deref());
                        hub.apply_member((*app, name), author, change, now_ms, mail);
                    }
                    Statement::Count(count) => hub.apply_count((*app, name), author, *count),
                    _ => panic!("{state:?}"),
                }
            }
            Stated::Ended(node, by) => {
                let author = StateAuthor { node: *node, is_ours: *by == self.id };
                for core in 0..self.cores.hubs.len() as u16 {
                    let (hub, mail) = self.cores.at(core);
                    visit_all(hub, StateVisit::NodeGone(author), mail);
                }
            }
        }
        self.pump();
        true
    }

    /// The oldest proposal fails.
    fn fail(&mut self, why: Unpublished) {
        let StateProposal { app, name, state } = self.proposals.remove(0);
        let user = match &state {
            Statement::Member { user, .. } => Some(user),
            _ => None,
        };
        let home = self.cores.home(&name);
        let (hub, mail) = self.cores.at(home);
        hub.state_failed(app, &name, user, why, mail);
        self.pump();
    }

    fn sweep(&mut self, ms: u64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        self.cores.hubs.iter_mut().for_each(|hub| hub.sweep(now_ms));
        self.pump();
    }

    fn visit(&mut self, visit: StateVisit) {
        for core in 0..self.cores.hubs.len() as u16 {
            let (hub, mail) = self.cores.at(core);
            visit_all(hub, visit, mail);
        }
    }

    fn restate(&mut self) {
        self.proposals.clear();
        self.visit(StateVisit::Restate);
        self.pump();
    }

    fn users(&self, name: &str) -> Vec<String> {
        let hub = &self.cores.hubs[self.cores.home(name) as usize];
        let query = Query::Users { app: 0, name: name.into() };
        let Answer::Users(users) = hub.answer_query(&query, 0) else { panic!("users") };
        users.into_iter().map(|(id, _)| id.to_string()).collect()
    }

    fn info(&self, name: &str) -> ChannelInfo {
        let hub = &self.cores.hubs[self.cores.home(name) as usize];
        hub.channel_info(&hub.name(0, name), 0)
    }

    fn channel_count(&self) -> usize {
        self.cores.hubs.iter().map(Hub::channel_count).sum()
    }

    fn heard(&self, place: &Place) -> Vec<String> {
        self.clients[place].roster.clone().expect("it was answered")
    }

    fn kinds(&mut self) -> Vec<ChannelEventKind> {
        std::mem::take(&mut self.events).into_iter().map(|it| it.what).collect()
    }
}

fn names(reply: JoinReply) -> Vec<String> {
    let users = reply.users.expect("users");
    users.iter().map(|(id, _)| id.to_string()).collect()
}

/// Nodes and their log.
struct Cluster {
    nodes: Vec<Node>,
    log: Vec<Stated>,
}

impl Cluster {
    fn new(nodes: u64, cores: u16) -> Cluster {
        Cluster { nodes: (1..=nodes).map(|id| Node::new(id, cores)).collect(), log: Vec::new() }
    }

    /// The engine stores the oldest proposal of a node.
    fn store(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.proposals.is_empty() {
            self.log.push(Stated::State(node.id, node.proposals.remove(0)));
        }
    }

    /// Everything is stored and applied, without failures.
    fn rest(&mut self) {
        loop {
            (0..self.nodes.len()).for_each(|at| self.store(at));
            let applied: Vec<bool> = self.nodes.iter_mut().map(|it| it.apply(&self.log)).collect();
            let is_idle = self.nodes.iter().all(|node| node.proposals.is_empty());
            if is_idle && !applied.contains(&true) {
                return;
            }
        }
    }

    /// Comes to rest, also with what happens only after a time.
    fn rest_long(&mut self) {
        for _ in 0..4 {
            self.nodes.iter_mut().for_each(|node| node.sweep(3001));
            self.rest();
        }
    }

    fn kinds(&mut self) -> Vec<Vec<ChannelEventKind>> {
        self.nodes.iter_mut().map(Node::kinds).collect()
    }
}

fn place(core: u16, index: u32, name: &str) -> Place {
    (core, index, name.to_owned())
}

fn added(user: &str) -> ChannelEventKind {
    ChannelEventKind::MemberAdded(user.into())
}

fn removed(user: &str) -> ChannelEventKind {
    ChannelEventKind::MemberRemoved(user.into())
}

use ChannelEventKind::{Count, Occupied, Vacated};

#[test]
fn nodes_join_is_answered_when_the_log_has_it() {
    let mut it = Cluster::new(2, 2);
    it.nodes[0].join((0, 1, "room"), "ada");
    assert!(it.nodes[0].clients[&place(0, 1, "room")].roster.is_none());
    assert_eq!(it.nodes[0].users("room"), [""; 0]);
    it.rest();
    assert_eq!(it.nodes[0].heard(&place(0, 1, "room")), ["ada"]);
    // On the home core and on the other one.
    it.nodes[1].join((0, 1, "room"), "bob");
    it.nodes[1].join((1, 2, "room"), "cyd");
    it.rest();
    for at in 0..2 {
        assert_eq!(it.nodes[at].users("room"), ["ada", "bob", "cyd"]);
    }
    assert_eq!(it.nodes[0].heard(&place(0, 1, "room")), ["ada", "bob", "cyd"]);
    assert_eq!(it.nodes[1].heard(&place(0, 1, "room")), ["ada", "bob", "cyd"]);
    assert_eq!(it.nodes[1].info("room").users, 3);
    // Further connections of a user on a node need no entry.
    let before = it.log.len();
    it.nodes[0].join((1, 3, "room"), "ada");
    assert_eq!(it.nodes[0].heard(&place(1, 3, "room")), ["ada", "bob", "cyd"]);
    let members = |log: &[Stated]| {
        let is_member = |it: &&Stated| {
            matches!(it, Stated::State(_, StateProposal { state: Statement::Member { .. }, .. }))
        };
        log.iter().filter(is_member).count()
    };
    it.rest();
    assert_eq!(members(&it.log[before..]), 0);
    // A user of two nodes leaves with the last of them.
    it.nodes[1].join((1, 4, "room"), "ada");
    it.rest();
    it.nodes[0].leave(&place(0, 1, "room"));
    it.nodes[0].leave(&place(1, 3, "room"));
    it.rest();
    assert_eq!(it.nodes[1].heard(&place(0, 1, "room")), ["ada", "bob", "cyd"]);
    it.nodes[1].leave(&place(1, 4, "room"));
    it.rest();
    assert_eq!(it.nodes[1].heard(&place(0, 1, "room")), ["bob", "cyd"]);
    it.nodes[1].leave(&place(0, 1, "room"));
    it.nodes[1].leave(&place(1, 2, "room"));
    it.rest_long();
    assert_eq!((it.nodes[0].channel_count(), it.nodes[1].channel_count()), (0, 0));
}

#[test]
fn nodes_changes_are_reported_by_their_author_only() {
    let mut it = Cluster::new(2, 1);
    it.nodes[0].join((0, 1, "room"), "ada");
    it.rest();
    assert_eq!(it.kinds(), [vec![Occupied, Count(1), added("ada")], vec![]]);
    it.nodes[1].join((0, 1, "room"), "ada");
    it.rest();
    assert_eq!(it.kinds(), [vec![], vec![Count(2)]]);
    it.nodes[0].leave(&place(0, 1, "room"));
    it.rest();
    assert_eq!(it.kinds(), [vec![], vec![]]);
    it.rest_long();
    assert_eq!(it.kinds(), [vec![Count(1)], vec![]]);
    it.nodes[1].leave(&place(0, 1, "room"));
    it.rest_long();
    assert_eq!(it.kinds(), [vec![], vec![removed("ada"), Vacated, Count(0)]]);
}

#[test]
fn nodes_end_of_a_node_removes_its_states_and_one_node_reports_it() {
    let mut it = Cluster::new(3, 2);
    it.nodes[0].join((0, 1, "room"), "ada");
    it.nodes[0].join((1, 2, "other"), "ada");
    it.nodes[0].join((1, 3, "room"), "bob");
    it.nodes[1].join((0, 1, "room"), "bob");
    it.nodes[2].join((0, 1, "room"), "cyd");
    it.rest();
    it.kinds();
    it.nodes.remove(0);
    it.log.push(Stated::Ended(1, 3));
    it.rest();
    for node in &it.nodes {
        assert_eq!(
            (node.users("room"), node.users("other").len()),
            (vec!["bob".to_owned(), "cyd".to_owned()], 0)
        );
        assert_eq!((node.info("room").subscriptions, node.info("other").subscriptions), (2, 0));
        let mut heard = node.heard(&place(0, 1, "room"));
        heard.sort();
        assert_eq!(heard, ["bob", "cyd"]);
    }
    let kinds = it.kinds();
    let [silent, author] = &kinds[..] else { panic!("two nodes") };
    assert!(silent.is_empty());
    let count = |kinds: &[ChannelEventKind], kind| kinds.iter().filter(|it| **it == kind).count();
    for (kind, times) in [(removed("ada"), 2), (removed("bob"), 0), (Vacated, 1), (Count(2), 1)] {
        assert_eq!(count(author, kind.clone()), times, "{kind:?} in {author:?}");
    }
}

#[test]
fn nodes_member_beyond_the_maximum_in_the_order_of_the_log_is_refused() {
    let mut it = Cluster::new(2, 2);
    for (node, index, user) in [(0, 1, "ada"), (0, 2, "bob"), (1, 1, "cyd"), (1, 2, "dan")] {
        it.nodes[node].join((0, index, "full"), user);
    }
    // All four are proposed while the channel is empty; node 1 is slower.
    while !it.nodes[0].proposals.is_empty() {
        it.store(0);
    }
    it.rest();
    for node in &it.nodes {
        assert_eq!(node.users("full"), ["ada", "bob", "cyd"]);
    }
    assert_eq!(it.nodes[1].refused, [(place(0, 2, "full"), JoinRefusal::ChannelFull)]);
    assert_eq!(it.nodes[0].heard(&place(0, 1, "full")), ["ada", "bob", "cyd"]);
    // A node that knows that the channel is full refuses at once; who is present may join.
    it.nodes[0].refused.clear();
    let before = it.log.len();
    it.nodes[0].join((1, 3, "full"), "eve");
    assert_eq!(it.nodes[0].refused, [(place(1, 3, "full"), JoinRefusal::ChannelFull)]);
    it.nodes[0].join((1, 4, "full"), "cyd");
    it.rest();
    assert_eq!(it.nodes[0].heard(&place(1, 4, "full")).len(), 3);
    assert!(it.log.len() > before);
    it.nodes[0].leave(&place(0, 1, "full"));
    it.rest();
    it.nodes[1].join((0, 2, "full"), "dan");
    it.rest();
    assert_eq!(it.nodes[0].users("full"), ["bob", "cyd", "dan"]);
}

#[test]
fn nodes_join_that_fails_is_refused_and_a_leave_is_stated_until_the_log_has_it() {
    for why in [Unpublished::Refused, Unpublished::Unknown] {
        let mut it = Cluster::new(2, 2);
        it.nodes[0].join((0, 1, "room"), "ada");
        it.nodes[0].join((1, 2, "room"), "ada");
        while !it.nodes[0].proposals.is_empty() {
            it.nodes[0].fail(why);
        }
        let refused = &mut it.nodes[0].refused;
        refused.sort_by_key(|(place, _)| place.clone());
        let not_stored = |core, index| (place(core, index, "room"), JoinRefusal::NotStored);
        assert_eq!(*refused, [not_stored(0, 1), not_stored(1, 2)]);
        it.rest_long();
        assert_eq!((it.nodes[0].users("room").len(), it.nodes[0].channel_count()), (0, 0));
        it.nodes[0].join((0, 1, "room"), "ada");
        it.nodes[1].join((0, 1, "room"), "bob");
        it.rest();
        it.nodes[0].leave(&place(0, 1, "room"));
        for _ in 0..3 {
            assert_eq!(it.nodes[0].proposals.len(), 1);
            it.nodes[0].fail(why);
            it.nodes[0].sweep(1000);
        }
        assert_eq!(it.nodes[1].users("room"), ["ada", "bob"]);
        it.rest();
        assert_eq!(it.nodes[1].users("room"), ["bob"]);
        // Nobody waits for the answer of an internal channel, so its joins go on.
        it.nodes[0].join((0, 5, "#watch-ada"), "ada");
        it.nodes[0].fail(why);
        assert!(it.nodes[0].clients[&place(0, 5, "#watch-ada")].roster.is_none());
        it.rest_long();
        assert_eq!(it.nodes[0].heard(&place(0, 5, "#watch-ada")), ["ada"]);
    }
}

#[test]
fn nodes_join_and_leave_before_the_log_has_it_leave_nothing() {
    let mut it = Cluster::new(2, 2);
    for core in 0..2 {
        it.nodes[0].join((core, 1, "room"), "ada");
        it.nodes[0].leave(&place(core, 1, "room"));
        it.nodes[0].join((core, 2, "room"), "ada");
        it.nodes[0].leave(&place(core, 2, "room"));
        it.rest_long();
        assert_eq!((it.nodes[0].users("room").len(), it.nodes[1].users("room").len()), (0, 0));
        assert_eq!((it.nodes[0].channel_count(), it.nodes[1].channel_count()), (0, 0));
        // A user who comes back while the leave is on its way.
        it.nodes[0].join((core, 3, "room"), "ada");
        it.rest();
        it.nodes[0].leave(&place(core, 3, "room"));
        it.nodes[0].join((core, 4, "room"), "ada");
        it.rest();
        assert_eq!(it.nodes[0].heard(&place(core, 4, "room")), ["ada"]);
        assert_eq!(it.nodes[1].users("room"), ["ada"]);
        it.nodes[0].leave(&place(core, 4, "room"));
        it.rest_long();
    }
}

/// A user who is refused comes again before its node has taken it back.
#[test]
fn nodes_member_beyond_the_maximum_who_comes_again_is_answered() {
    let mut it = Cluster::new(2, 1);
    for (index, user) in ["ada", "bob", "cyd"].iter().enumerate() {
        it.nodes[0].join((0, index as u32, "full"), user);
    }
    it.nodes[1].join((0, 1, "full"), "dan");
    while !it.nodes[0].proposals.is_empty() {
        it.store(0);
    }
    while !it.nodes[1].proposals.is_empty() {
        it.store(1);
    }
    let node = &mut it.nodes[1];
    node.holds = true;
    while node.refused.is_empty() {
        assert!(node.apply(&it.log));
    }
    node.join((0, 1, "full"), "dan");
    node.holds = false;
    node.pump();
    it.rest();
    assert_eq!(it.nodes[1].refused.len(), 2, "refused once more");
    assert_eq!(it.nodes[0].users("full"), ["ada", "bob", "cyd"]);
    it.rest_long();
    assert_eq!(it.nodes[1].users("full"), ["ada", "bob", "cyd"]);
}

#[test]
fn nodes_restate_and_refresh_agree_with_what_is_open() {
    let mut it = Cluster::new(2, 2);
    it.nodes[0].join((0, 1, "full"), "ada");
    it.nodes[1].join((0, 1, "full"), "bob");
    it.nodes[1].join((1, 2, "full"), "cyd");
    it.rest();
    it.kinds();
    // The log is lost with a state that nobody has any more.
    it.nodes[1].leave(&place(1, 2, "full"));
    it.log.clear();
    for node in &mut it.nodes {
        node.position = 0;
        node.visit(StateVisit::RefreshBegin);
        node.restate();
    }
    it.rest();
    for (at, node) in it.nodes.iter_mut().enumerate() {
        node.visit(StateVisit::RefreshEnd { is_ours: at == 0 });
        node.pump();
        assert_eq!(node.users("full"), ["ada", "bob"]);
        assert_eq!(node.heard(&place(0, 1, "full")), ["ada", "bob"]);
        assert_eq!(node.info("full").subscriptions, 2);
    }
    // The node that had the user tells, because it takes back what the new log may have of it.
    let kinds = it.kinds();
    assert!(kinds[1].contains(&removed("cyd")) && !kinds[0].contains(&removed("cyd")), "{kinds:?}");
    // A node with another id is back even if the channel is full meanwhile.
    it.nodes[1].id = 9;
    it.log.push(Stated::Ended(2, 1));
    it.log.push(Stated::State(7, state_of("full", "dan")));
    it.log.push(Stated::State(7, state_of("full", "eve")));
    while it.nodes[1].apply(&it.log) {}
    it.nodes[1].restate();
    it.rest();
    assert_eq!(it.nodes[0].users("full"), ["ada", "dan", "eve", "bob"]);
    assert_eq!(it.nodes[1].users("full"), ["ada", "dan", "eve", "bob"]);
    assert_eq!(it.nodes[1].heard(&place(0, 1, "full")), ["ada", "dan", "eve", "bob"]);
}

fn state_of(name: &str, user: &str) -> StateProposal<()> {
    let member = user_member(user, FULL).member.map(|member| Arc::from(*member));
    StateProposal {
        app: 0,
        name: name.into(),
        state: Statement::Member { user: user.into(), member },
    }
}

#[test]
fn nodes_state_numbers_when_an_application_begins_to_count() {
    let mut it = Cluster::new(2, 2);
    let watch = |it: &mut Cluster, mask| {
        let nodes = it.nodes.iter_mut();
        nodes.flat_map(|node| &mut node.cores.hubs).for_each(|hub| hub.watch(Arc::from([mask]), 1));
        it.nodes.iter_mut().for_each(Node::pump);
    };
    watch(&mut it, EventMask::NONE);
    for index in 0..3 {
        it.nodes[0].join((0, index, "room"), "ada");
    }
    it.rest_long();
    assert!(it.nodes[1].info("room").subscriptions < 3, "only that there are some");
    watch(&mut it, EventMask::READS);
    it.rest();
    assert_eq!(it.nodes[1].info("room").subscriptions, 3);
    assert!(it.kinds().concat().is_empty());
}

#[test]
fn nodes_that_leave_state_no_end() {
    let mut it = Cluster::new(2, 2);
    it.nodes[0].join((0, 1, "room"), "ada");
    it.nodes[0].join((0, 2, "room"), "bob");
    it.rest();
    it.nodes[0].cores.hubs.iter_mut().for_each(|hub| hub.leave_log());
    it.nodes[0].leave(&place(0, 1, "room"));
    it.nodes[0].leave(&place(0, 2, "room"));
    it.rest_long();
    assert_eq!(it.nodes[1].users("room"), ["ada", "bob"]);
    it.nodes[1].join((0, 1, "room"), "bob");
    it.rest();
    it.kinds();
    it.log.push(Stated::Ended(1, 2));
    it.rest();
    assert_eq!(it.nodes[1].users("room"), ["bob"]);
    assert!(!it.kinds()[1].contains(&removed("bob")), "he never left");
}

#[test]
fn nodes_count_is_the_sum_of_all_and_proposals_are_bounded() {
    let mut it = Cluster::new(2, 1);
    for index in 0..600 {
        it.nodes[0].join((0, index, &format!("room-{index}")), "ada");
    }
    // Two states of each channel; what is more waits in the hub.
    assert_eq!(it.nodes[0].proposals.len(), 1024);
    for index in 0..3 {
        it.nodes[1].join((0, index, "room-7"), "bob");
    }
    it.rest_long();
    for node in &it.nodes {
        assert_eq!((node.info("room-7").users, node.info("room-7").subscriptions), (2, 4));
        let query = Query::Channels { app: 0, prefix: "".into(), max: 1000, counts: false };
        let Answer::Channels(list) = node.cores.hubs[0].answer_query(&query, 0) else {
            panic!("a list")
        };
        let total: u64 = list.iter().map(|(_, info)| info.subscriptions).sum();
        assert_eq!((list.len(), total), (600, 603));
    }
}

/// Anything that can happen to connections, nodes and proposals: at rest all agree with what is
/// open, every client hears additions and removals in turn, and each change has one reporter.
#[test]
fn nodes_sim_rosters_at_rest_are_the_open_connections() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut it = Cluster::new(rng.u64(1..4), rng.u16(1..4));
        let cores = it.nodes[0].cores.hubs.len() as u16;
        for _ in 0..rng.usize(20..300) {
            let at = rng.usize(..it.nodes.len());
            match rng.u8(..20) {
                0..6 => {
                    let name = ["room", "full", "#watch-x"][rng.usize(..3)];
                    let user = ["ada", "bob", "cyd", "dan", "eve"][rng.usize(..5)];
                    let place = (rng.u16(..cores), rng.u32(..4), name);
                    it.nodes[at].join(place, user);
                }
                6..9 => {
                    let places: Vec<Place> = it.nodes[at].clients.keys().cloned().collect();
                    if let Some(place) = rng.choice(&places) {
                        it.nodes[at].leave(place);
                    }
                }
                9..13 => it.store(at),
                13 if !it.nodes[at].proposals.is_empty() => {
                    it.nodes[at].fail(Unpublished::Refused);
                }
                14 if !it.nodes[at].proposals.is_empty() => {
                    // It may be in the log nevertheless.
                    if rng.bool() {
                        let state = it.nodes[at].proposals[0].clone();
                        it.log.push(Stated::State(it.nodes[at].id, state));
                    }
                    it.nodes[at].fail(Unpublished::Unknown);
                }
                15 if it.nodes.len() > 1 && rng.u8(..4) == 0 => {
                    let dead = it.nodes.remove(at);
                    let by = it.nodes[rng.usize(..it.nodes.len())].id;
                    it.log.push(Stated::Ended(dead.id, by));
                }
                16 => it.nodes[at].sweep(rng.u64(1..2000)),
                _ => drop(it.nodes[at].apply(&it.log)),
            }
        }
        it.rest_long();
        judge(&mut it, seed);
    }
}

fn judge(it: &mut Cluster, seed: u64) {
    for name in ["room", "full", "#watch-x"] {
        let here = it.nodes.iter().flat_map(|node| &node.clients);
        let here: Vec<_> = here.filter(|((.., other), _)| other == name).collect();
        let open: BTreeSet<String> = here.iter().map(|(_, client)| client.user.clone()).collect();
        for (place, client) in &here {
            let roster =
                client.roster.as_ref().unwrap_or_else(|| panic!("{seed}: {place:?} waits"));
            let roster: BTreeSet<String> = roster.iter().cloned().collect();
            assert_eq!(roster, open, "seed {seed}: what {place:?} knows");
        }
        assert!(name != "full" || open.len() <= FULL, "seed {seed}: {open:?}");
        let subscriptions = if name.starts_with('#') { 0 } else { here.len() as u64 };
        for node in &it.nodes {
            let users: BTreeSet<String> = node.users(name).into_iter().collect();
            assert_eq!(users, open, "seed {seed}: {name} on node {}", node.id);
            assert_eq!(node.info(name).subscriptions, subscriptions, "seed {seed}: {name}");
        }
    }
    let names = ["room", "full", "#watch-x"].iter();
    let is_open = |name: &&&str| {
        it.nodes.iter().any(|node| node.clients.keys().any(|(.., other)| other == **name))
    };
    let open = names.filter(is_open).count();
    for node in &it.nodes {
        let homes = node.cores.hubs.iter().flat_map(|hub| hub.channels.iter().flatten());
        let homes: BTreeSet<&str> = homes.map(|it| it.name.text()).collect();
        assert_eq!(homes.len(), open, "seed {seed}: {homes:?}");
    }
    let mut expected = changes_of(&it.log);
    for node in &mut it.nodes {
        let is_change = |it: &ChannelEvent| !matches!(it.what, Count(_));
        let events = std::mem::take(&mut node.events).into_iter().filter(is_change);
        // Only the order in a channel matters.
        let mut events: Vec<_> = events.map(|it| (it.channel.to_string(), it.what)).collect();
        events.sort_by(|one, other| one.0.cmp(&other.0));
        let mut expected = expected.remove(&node.id).unwrap_or_default();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(events, expected, "seed {seed}: what node {} reports", node.id);
    }
}

/// A fold of the log that is simpler than the hub's.
#[derive(Default)]
struct Model {
    users: BTreeMap<String, Vec<(String, BTreeSet<u64>)>>,
    counts: BTreeMap<String, BTreeSet<u64>>,
    /// The changes that each node has made, by the order of the log.
    changes: BTreeMap<u64, Vec<(String, ChannelEventKind)>>,
}

fn changes_of(log: &[Stated]) -> BTreeMap<u64, Vec<(String, ChannelEventKind)>> {
    let mut model = Model::default();
    for entry in log {
        match entry {
            Stated::Ended(node, by) => model.end(*node, *by),
            Stated::State(node, StateProposal { name, state, .. }) => match state {
                Statement::Count(count) => model.count(*node, name, *count > 0),
                Statement::Picture(_) | Statement::Counting(_) | Statement::Miss { .. } => {}
                Statement::Member { user, member: Some(member) } => {
                    model.add(*node, name, user, member.max);
                }
                Statement::Member { user, member: None } => model.remove(*node, *node, name, user),
            },
        }
    }
    model.changes
}

impl Model {
    fn change(&mut self, author: u64, name: &str, what: ChannelEventKind) {
        if !name.starts_with('#') {
            self.changes.entry(author).or_default().push((name.to_owned(), what));
        }
    }

    fn end(&mut self, node: u64, author: u64) {
        let users = self.users.iter();
        let all = users.flat_map(|(name, users)| users.iter().map(move |it| (name, &it.0)));
        let all: Vec<_> = all.map(|(name, user)| (name.clone(), user.clone())).collect();
        all.iter().for_each(|(name, user)| self.remove(node, author, name, user));
        let counted: Vec<String> = self.counts.keys().cloned().collect();
        counted.iter().for_each(|name| self.uncount(node, author, name));
    }

    fn uncount(&mut self, node: u64, author: u64, name: &str) {
        let nodes = self.counts.entry(name.to_owned()).or_default();
        if nodes.remove(&node) && nodes.is_empty() {
            self.change(author, name, Vacated);
        }
    }

    fn count(&mut self, node: u64, name: &str, has_some: bool) {
        if !has_some {
            return self.uncount(node, node, name);
        }
        let nodes = self.counts.entry(name.to_owned()).or_default();
        if nodes.insert(node) && nodes.len() == 1 {
            self.change(node, name, Occupied);
        }
    }

    fn add(&mut self, node: u64, name: &str, user: &str, max: usize) {
        let users = self.users.entry(name.to_owned()).or_default();
        if let Some((_, nodes)) = users.iter_mut().find(|it| it.0 == user) {
            nodes.insert(node);
        } else if max == 0 || users.len() < max {
            users.push((user.to_owned(), BTreeSet::from([node])));
            self.change(node, name, added(user));
        }
    }

    fn remove(&mut self, node: u64, author: u64, name: &str, user: &str) {
        let users = self.users.entry(name.to_owned()).or_default();
        let Some(at) = users.iter().position(|it| it.0 == user) else { return };
        if users[at].1.remove(&node) && users[at].1.is_empty() {
            users.remove(at);
            self.change(author, name, removed(user));
        }
    }
}

/// A visit from its beginning to its end, of which no slice does more than its part.
fn visit_all(hub: &mut Hub, visit: StateVisit, mail: &mut OutgoingMail) {
    hub.begin_visit(visit);
    while hub.is_visiting() {
        assert!(hub.visit_slice(mail).places <= 256);
    }
}

/// The end of a node is noticed in slices, however many channels there are, and what was not
/// visited yet changes later. Channels that come and go meanwhile are missed by no visit.
#[test]
fn nodes_visit_of_all_channels_is_done_in_slices() {
    const CHANNELS: usize = 1000;
    let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
    hub.follow_log(StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000 });
    let author = |node| StateAuthor { node, is_ours: false };
    let member = user_member("ada", 0).member;
    for n in 0..CHANNELS {
        let name = format!("presence-{n}");
        for node in [7, 8] {
            let change = (&Arc::from("ada"), member.as_deref());
            hub.apply_member((0, &name), author(node), change, NOW_MS, &mut mail);
            hub.apply_count((0, &name), author(node), 1);
        }
    }
    let subscriptions = |hub: &Hub| -> u64 {
        (0..CHANNELS)
            .map(|n| hub.channel_info(&hub.name(0, &format!("presence-{n}")), NOW_MS).subscriptions)
            .sum()
    };
    assert!(!hub.is_visiting());
    assert_eq!(hub.visit_slice(&mut mail), VisitedSlice::default());
    hub.begin_visit(StateVisit::NodeGone(author(7)));
    let mut slices = Vec::new();
    while hub.is_visiting() {
        slices.push(hub.visit_slice(&mut mail));
        let visited: usize = slices.iter().map(|slice| slice.places).sum();
        assert_eq!(subscriptions(&hub), (2 * CHANNELS - visited) as u64);
        // The tables stay as they are, also if they have become much too large.
        hub.sweep(NOW_MS);
        assert!(hub.next_state(NOW_MS).is_none() && !hub.has_states());
    }
    let places: Vec<_> = slices.iter().map(|slice| slice.places).collect();
    assert_eq!(places, [256, 256, 256, 232]);
    assert!(slices.iter().all(|slice| slice.changes == slice.places), "a count each");
    hub.begin_visit(StateVisit::NodeGone(author(8)));
    let first = hub.visit_slice(&mut mail);
    assert_eq!(first, VisitedSlice { places: 256, changes: 512 }, "a count and a user each");
    // The last channels take free places, and the tables may not be packed before the end.
    for _ in 0..10 {
        hub.sweep(NOW_MS);
    }
    hub.invariants();
    while hub.is_visiting() {
        hub.visit_slice(&mut mail);
    }
    assert_eq!((hub.channel_count(), subscriptions(&hub)), (0, 0));
}
