//! What nodes state of themselves: users, counts, and all of it once more.

use super::*;

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
