//! Joins and leaves, and when the log has them.

use super::*;

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
fn nodes_join_is_refused_when_its_time_is_over_wherever_it_waits() {
    for holds in [true, false] {
        let mut it = Cluster::new(2, 2);
        // Others are stated first, or the log is away.
        it.nodes[0].holds = holds;
        it.nodes[0].join((0, 1, "room"), "ada");
        it.nodes[0].join((0, 2, "#watch-ada"), "ada");
        it.nodes[0].sweep(TIMES.hold_ms / 2);
        it.nodes[0].join((1, 3, "room"), "ada");
        it.nodes[0].join((1, 4, "room"), "bob");
        it.nodes[0].sweep(TIMES.hold_ms / 2 - 1);
        assert_eq!(it.nodes[0].refused, []);
        it.nodes[0].sweep(1);
        let not_stored = |core, index| (place(core, index, "room"), JoinRefusal::NotStored);
        assert_eq!(it.nodes[0].refused, [not_stored(0, 1)]);
        it.nodes[0].sweep(TIMES.hold_ms / 2);
        let refused = &mut it.nodes[0].refused;
        refused.sort_by_key(|(place, _)| place.clone());
        assert_eq!(*refused, [not_stored(0, 1), not_stored(1, 3), not_stored(1, 4)]);
        it.nodes[0].holds = false;
        it.rest_long();
        for node in &it.nodes {
            assert_eq!((node.users("room").len(), node.users("#watch-ada").len()), (0, 1));
        }
        assert_eq!(it.nodes[0].heard(&place(0, 2, "#watch-ada")), ["ada"]);
        it.nodes[0].join((0, 1, "room"), "ada");
        it.rest();
        it.nodes[0].sweep(TIMES.hold_ms);
        assert_eq!(it.nodes[0].heard(&place(0, 1, "room")), ["ada"]);
    }
}

/// A client that joins and leaves again and again while the log is away leaves nothing behind, and
/// what waits is counted.
#[test]
fn nodes_joins_that_wait_have_one_deadline_for_each_user() {
    let mut it = Cluster::new(1, 1);
    it.nodes[0].holds = true;
    for round in 0..1000 {
        it.nodes[0].join((0, 1, "room"), "ada");
        it.nodes[0].join((0, 2, "room"), "ada");
        it.nodes[0].join((0, 3, "#watch-ada"), "ada");
        assert_eq!(it.nodes[0].waiting_joins(), (1, 0), "{round}");
        it.nodes[0].leave(&place(0, 1, "room"));
        assert_eq!(it.nodes[0].waiting_joins(), (1, 0), "{round}");
        it.nodes[0].leave(&place(0, 2, "room"));
        it.nodes[0].leave(&place(0, 3, "#watch-ada"));
        assert_eq!(it.nodes[0].waiting_joins(), (0, 0), "{round}");
        it.nodes[0].sweep(1);
    }
    it.nodes[0].join((0, 1, "room"), "ada");
    it.nodes[0].join((0, 2, "room"), "bob");
    it.nodes[0].sweep(TIMES.hold_ms - 1);
    assert_eq!(it.nodes[0].waiting_joins(), (2, 0));
    it.nodes[0].sweep(1);
    assert_eq!(it.nodes[0].waiting_joins(), (0, 2));
    assert_eq!(it.nodes[0].waiting_joins(), (0, 0), "they are counted once");
    it.nodes[0].holds = false;
    it.nodes[0].join((0, 3, "room"), "ada");
    it.rest();
    assert_eq!(it.nodes[0].users("room"), ["ada"]);
    assert_eq!(it.nodes[0].waiting_joins(), (0, 0));
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
