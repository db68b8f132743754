//! A random life of several nodes, and a model of it.

use super::*;

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
                Statement::Count(count) => model.count(*node, name, count.all > 0),
                Statement::Picture(_) | Statement::Counting(..) | Statement::Miss { .. } => {}
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
