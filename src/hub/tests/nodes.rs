//! Several nodes, each with the hubs of its cores, that follow one log.

mod changes;
mod joins;
mod random;
mod states;

use super::*;
use crate::hub::tests::cores::Mail;
use crate::hub::{JoinReply, StateAuthor, StateProposal, StateTimes, Statement, Unpublished};
use std::collections::{BTreeMap, BTreeSet};

/// The maximum number of members of the channel `full`.
const FULL: usize = 3;
const TIMES: StateTimes =
    StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000, hold_ms: 8000 };

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
                    Statement::Count(count) => hub.apply_count((*app, name), author, count.clone()),
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
        for core in 0..self.cores.hubs.len() as u16 {
            let (hub, mail) = self.cores.at(core);
            hub.sweep(now_ms);
            hub.refuse_overdue(now_ms, mail);
        }
        self.pump();
    }

    /// The sums of all cores.
    fn waiting_joins(&mut self) -> (usize, u64) {
        let of = |hub: &mut Hub| hub.waiting_joins();
        let all = self.cores.hubs.iter_mut().map(of);
        all.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
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

/// A visit from its beginning to its end, of which no slice does more than its part.
fn visit_all(hub: &mut Hub, visit: StateVisit, mail: &mut OutgoingMail) {
    hub.begin_visit(visit);
    while hub.is_visiting() {
        assert!(hub.visit_slice(mail).places <= 256);
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
