//! Which node reports a change, and the changes that the end of a node makes.

use super::*;
use crate::hub::statements::TIMERS_PER_SWEEP;

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

/// Channels that are left at the same time are not all examined in one sweep.
#[test]
fn nodes_timers_of_many_channels_end_in_several_sweeps() {
    const CHANNELS: usize = TIMERS_PER_SWEEP + 10;
    let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
    let linger_ms = 3000;
    hub.follow_log(StateTimes { linger_ms, count_every_ms: 1000, picture_ms: 5000, hold_ms: 8000 });
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("channel-{n}")).collect();
    let state_all = |hub: &mut Hub, count: u32, now_ms| {
        let mut stated = 0;
        while let Some(StateProposal { app, name, .. }) = hub.next_state(now_ms) {
            let ours = StateAuthor { node: 7, is_ours: true };
            hub.apply_count((app, &name), ours, count);
            stated += 1;
        }
        stated
    };
    for name in &names {
        let (slot, form) = (slot(1), Form::PUBLISHED);
        let join =
            Join { slot, app: 0, name, max: CHANNELS, is_public: false, request: None, form };
        assert!(matches!(hub.join(join, NOW_MS, &mut mail), Joined::Now(None)));
    }
    assert_eq!(state_all(&mut hub, 1, NOW_MS), CHANNELS);
    for name in &names {
        assert!(hub.leave(slot(1), 0, name, &mut mail));
    }
    assert_eq!(state_all(&mut hub, 0, NOW_MS), 0, "it is not stated before the time is over");
    let later_ms = NOW_MS + linger_ms;
    let in_sweeps = [(); 3].map(|()| {
        hub.sweep(later_ms);
        state_all(&mut hub, 0, later_ms)
    });
    assert_eq!(in_sweeps, [TIMERS_PER_SWEEP, 10, 0]);
}

/// The end of a node is noticed in slices, however many channels there are, and what was not
/// visited yet changes later. Channels that come and go meanwhile are missed by no visit.
#[test]
fn nodes_visit_of_all_channels_is_done_in_slices() {
    const CHANNELS: usize = 1000;
    let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
    hub.follow_log(StateTimes {
        linger_ms: 3000,
        count_every_ms: 1000,
        picture_ms: 5000,
        hold_ms: 8000,
    });
    let author = |node| StateAuthor { node, is_ours: false };
    let member = user_member("ada", 0).member;
    for n in 0..CHANNELS {
        let name = format!("presence-{n}");
        for node in [7, 8] {
            let change = (&Arc::from("ada"), member.as_deref());
            hub.apply_member((0, &name), author(node), change, NOW_MS, &mut mail);
            hub.apply_count((0, &name), author(node), 1u32);
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
