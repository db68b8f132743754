//! Pictures that are stated late, in part, or not at all.

use super::*;

#[test]
fn picture_that_is_rewritten_is_unknown_to_a_new_node_until_it_is_whole() {
    let mut world = World::new();
    let long = Value::map([("a", Value::text(&"x".repeat(60)))]);
    world.run(Step::Publish(0, MERGE, long));
    world.rest();
    world.run(Step::Publish(0, MERGE, number("b", 1)));
    world.read_all();
    world.log.now_ms += EVERY_MS;
    world.nodes[0].sweep(true, world.log.now_ms);
    assert_eq!(world.nodes[0].proposals.len(), 1, "the last piece is the first one");
    world.store(0, true);
    world.start(1);
    world.nodes[1].read(&world.log, usize::MAX);
    assert_eq!(world.nodes[1].picture(NAMES[0]), Err(()));
    world.rest();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
}

#[test]
fn picture_of_a_log_that_was_lost_reaches_a_node_that_starts_before_it_is_stated() {
    let mut world = World::new();
    let long = Value::map([("a", Value::text(&"x".repeat(60)))]);
    world.run(Step::Publish(0, MERGE, long));
    world.lose();
    world.start(0);
    world.rest();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
}

#[test]
fn picture_is_stated_by_another_node_if_the_leading_one_is_late() {
    let mut world = World::new();
    world.run(Step::Publish(0, MERGE, number("a", 1)));
    world.read_all();
    for (ms, is_due) in [((1 + OTHERS) * EVERY_MS - 1, false), ((1 + OTHERS) * EVERY_MS, true)] {
        world.nodes[2].sweep(false, ms);
        assert_eq!(!world.nodes[2].proposals.is_empty(), is_due, "{ms}");
    }
}

#[test]
fn picture_that_was_dropped_for_lack_of_memory_is_not_stated() {
    let mut world = World::new();
    world.run(Step::Publish(0, MERGE, number("a", 1)));
    world.read_all();
    let node = &mut world.nodes[0];
    let max_bytes = std::mem::replace(&mut node.hub.kept.max_bytes, 0);
    node.sweep(true, EVERY_MS);
    assert!(node.proposals.is_empty() && node.hub.losses().kept == 1);
    // From the next whole value on it is known again.
    node.hub.kept.max_bytes = max_bytes;
    world.run(Step::Publish(0, PictureChange::Update(Mode::Replace), number("b", 1)));
    world.rest();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
}

#[test]
fn picture_of_a_node_without_room_for_the_changes_is_unknown_until_it_is_stated() {
    let mut world = World::new();
    world.run(Step::Publish(0, MERGE, number("a", 1)));
    world.start(1);
    world.nodes[1].hub.kept.max_bytes = 10;
    world.nodes[1].read(&world.log, usize::MAX);
    assert_eq!(world.nodes[1].picture(NAMES[0]), Err(()));
    assert!(world.nodes[1].hub.losses().kept > 0);
    world.nodes[1].hub.kept.max_bytes = 1 << 20;
    world.rest();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
}

/// A piece of an older picture that is stored late replaces one of the newer picture.
#[test]
fn picture_of_which_a_late_node_replaces_a_piece_is_stated_again() {
    let mut world = World::new();
    let clear = || Step::Publish(0, PictureChange::Clear, Value::Map(Vec::new()));
    let long = Value::text("a longer text, of several pieces");
    world.run(clear());
    [10, 3622, 1778].into_iter().for_each(|ms| world.run(Step::Wait(ms)));
    world.run(Step::Publish(0, PictureChange::Update(Mode::Replace), long));
    [3018, 2566, 3347, 669].into_iter().for_each(|ms| world.run(Step::Wait(ms)));
    for step in [Step::Again(2), clear(), Step::Store(2, false), clear()] {
        world.run(step);
    }
    [686, 2500].into_iter().for_each(|ms| world.run(Step::Wait(ms)));
    world.rest();
    world.log.now_ms += KEPT_MS;
    world.log.expire();
    world.start(1);
    world.read_all();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
}

/// A piece of an older picture, whichever it is, is stored after the newer picture.
#[test]
fn picture_is_stated_again_after_any_late_piece_of_an_older_one() {
    let replace = PictureChange::Update(Mode::Replace);
    let text = |letter: &str, length| Value::text(&letter.repeat(length));
    for (newer, late) in [(60, 0), (60, 1), (60, 2), (2, 0), (2, 2), (80, 2)] {
        let mut world = World::new();
        world.run(Step::Publish(0, replace, text("a", 60)));
        world.read_all();
        world.log.now_ms += (1 + OTHERS) * EVERY_MS;
        let mut pieces = Vec::new();
        while pieces.len() < 3 {
            world.nodes[2].sweep(false, world.log.now_ms);
            let proposed = world.nodes[2].proposals.pop().expect("a piece");
            world.nodes[2].hub.note_picture_piece((APP, proposed.name), &proposed.piece, true);
            pieces.push(proposed);
        }
        world.start(2);
        world.run(Step::Publish(0, replace, text("b", newer)));
        world.rest();
        world.log.assert_whole();
        let Proposed { author, name, piece, .. } = pieces[2 - late].clone();
        assert_eq!((piece.index, piece.count), (late as u32, 3));
        world.log.store(name, Stored::Piece(author, piece));
        world.log.expire();
        world.start(1);
        world.rest();
        world.log.assert_whole();
        world.start(2);
        world.read_all();
        let World { log, nodes, .. } = &mut world;
        nodes.iter_mut().for_each(|node| node.assert_level(log));
    }
}

/// An old picture is stored after a newer change has ended it: while the nodes remember that, and
/// when they have released what they knew of the channel, if they have read the old change itself.
#[test]
fn picture_that_has_ended_does_not_come_back_by_a_late_piece() {
    for has_read_all in [false, true] {
        let mut world = World::new();
        if has_read_all {
            world.rest();
        }
        world.run(Step::Publish(0, MERGE, number("a", 1)));
        world.read_all();
        world.log.now_ms += (1 + OTHERS) * EVERY_MS;
        world.nodes[2].sweep(false, world.log.now_ms);
        let Proposed { author, name, piece, .. } = world.nodes[2].proposals.remove(0);
        world.start(2);
        world.run(Step::Publish(0, PictureChange::Clear, Value::Map(Vec::new())));
        world.rest_for(if has_read_all { 24 } else { 6 });
        let knows = |node: &Node| node.hub.channel_count() > 0;
        assert!(world.nodes.iter().all(|node| knows(node) != has_read_all));
        world.read_all();
        world.log.expire();
        world.log.store(name, Stored::Piece(author, piece));
        world.read_all();
        for at in [0, 1] {
            let World { log, nodes, .. } = &mut world;
            nodes[at].assert_level(log);
        }
        // A node that starts now may take it for the picture, until the next statement.
        world.start(1);
        world.rest();
        world.log.assert_whole();
        world.start(2);
        world.read_all();
        let World { log, nodes, .. } = &mut world;
        nodes.iter_mut().for_each(|node| node.assert_level(log));
        let is_end = |it: &Entry| matches!(&it.what, Stored::Piece(_, piece) if piece.count == 0);
        assert!(log.entries.iter().all(is_end));
        log.now_ms += KEPT_MS;
        log.expire();
        assert!(log.entries.is_empty());
    }
}

/// Nobody has the picture whose pieces are in the log. A change that does not depend on it ends
/// that.
#[test]
fn picture_that_no_node_knows_is_known_from_the_next_whole_value_on() {
    let mut world = World::new();
    world.run(Step::Publish(0, MERGE, Value::map([("a", Value::text(&"x".repeat(60)))])));
    world.rest();
    let is_first = |entry: &Entry| matches!(&entry.what, Stored::Piece(_, it) if it.index == 1);
    world.log.entries.retain(|entry| !is_first(entry));
    world.log.now_ms += KEPT_MS;
    world.log.expire();
    (0..3).for_each(|at| world.start(at));
    world.rest();
    world.run(Step::Publish(0, MERGE, number("b", 1)));
    world.rest();
    assert!(world.nodes.iter_mut().all(|node| node.picture(NAMES[0]).is_err()));
    world.run(Step::Publish(0, PictureChange::Update(Mode::Replace), number("c", 1)));
    world.rest();
    world.log.assert_whole();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
    let held = nodes.iter().map(|node| node.hub.pictures.as_ref().expect("some").held_bytes);
    assert_eq!(held.sum::<usize>(), 0);
}

/// A node that ends its reading while another one is writing a picture of several pieces takes the
/// rest of them, too.
#[test]
fn picture_that_is_being_written_when_the_reading_ends_is_taken() {
    let mut world = World::new();
    world.run(Step::Publish(0, MERGE, Value::map([("a", Value::text(&"x".repeat(60)))])));
    world.lose_without_rest();
    world.nodes[0].sweep(true, world.log.now_ms);
    world.store(0, true);
    world.start(1);
    world.nodes[1].read(&world.log, usize::MAX);
    world.nodes[1].sweep(true, world.log.now_ms);
    assert_eq!(world.nodes[1].hub.pictures.as_ref().expect("some").phase, ReadingPhase::Done);
    world.rest();
    let World { log, nodes, .. } = &mut world;
    nodes.iter_mut().for_each(|node| node.assert_level(log));
}

/// What is done to all pictures is done in slices, of at most 256 channels or 1024 changes and
/// those of one channel.
#[test]
fn pictures_of_all_channels_are_visited_in_slices() {
    const CHANNELS: usize = 300;
    let places = |hub: &mut TestHub| {
        let (mut slices, mut mail) = (Vec::new(), OutgoingMail::new(1));
        while hub.is_visiting() {
            slices.push(hub.visit_slice(&mut mail));
        }
        let changes = slices.iter().map(|slice| slice.changes).max().expect("a slice");
        (slices.iter().map(|slice| slice.places).collect::<Vec<_>>(), changes)
    };
    for (updates, first, max) in [(3, 256, 1024), (4, 205, 1025)] {
        let log = Log { generation: 1, ..Log::default() };
        let Node { mut hub, mut mail, .. } = Node::new(0, &log);
        let apply = |hub: &mut TestHub, mail: &mut OutgoingMail<()>| {
            for n in 0..CHANNELS * updates {
                let name = format!("channel-{}", n % CHANNELS);
                let serial = log_serial(n as u64 + 1, 0).expect("a number");
                let place = LogPlace { serial, age_ms: 0, ttl_s: None, was_delivered: false };
                let mut event = event(MERGE, &number("a", 1));
                hub.apply(APP, &name, (&mut event, Some(place)), 0, mail);
            }
        };
        apply(&mut hub, &mut mail);
        // The changes that are kept until the log was read are forgotten.
        hub.sweep(0);
        assert_eq!(places(&mut hub), (vec![first, CHANNELS - first], max));
        assert_eq!(hub.pictures.as_ref().expect("some").held_bytes, 0);
        let is_known = |hub: &TestHub| hub.picture_count() == CHANNELS;
        assert!(is_known(&hub));
        // All are stated again in another log, and nothing of the one before is.
        hub.list_due_pictures(true, EVERY_MS);
        hub.begin_log(LogStart { generation: 2, stream: 2, ..log.start() }, &mut mail);
        assert!(hub.next_picture().is_none());
        assert_eq!(places(&mut hub), (vec![256, 44], 256));
        hub.begin_visit(StateVisit::RefreshBegin);
        assert_eq!(places(&mut hub), (vec![256, 44], 256));
        assert!(is_known(&hub) && hub.next_picture().is_none());
        apply(&mut hub, &mut mail);
        hub.begin_visit(StateVisit::RefreshEnd { is_ours: false });
        assert_eq!(places(&mut hub), (vec![first, CHANNELS - first], max));
        hub.list_due_pictures(true, 0);
        assert!(hub.next_picture().is_some());
        hub.begin_visit(StateVisit::Restate);
        assert_eq!(places(&mut hub), (vec![256, 44], 256));
        assert_eq!(hub.pictures.as_ref().expect("some").under_way, 0);
        hub.list_due_pictures(true, 0);
        let serials = std::iter::from_fn(|| hub.next_picture()).map(|it| match it.state {
            Statement::Picture(piece) => piece.serial,
            other => panic!("{other:?}"),
        });
        assert!(serials.take(UNDER_WAY).all(|serial| serial > 1));
        // After a gap nothing is known, and the channels that have nothing else are released.
        hub.begin_visit(StateVisit::RefreshBegin);
        hub.visit_slice(&mut mail);
        assert_eq!(hub.channel_count(), CHANNELS - 256);
        assert_eq!(places(&mut hub), (vec![44], 44));
        assert_eq!((hub.channel_count(), hub.kept_bytes()), (0, 0));
        assert_eq!(hub.pictures.as_ref().expect("some").under_way, 0);
    }
}

#[test]
fn picture_that_follows_one_that_has_ended_is_stated_as_early_as_others() {
    let mut world = World::new();
    world.run(Step::Publish(0, MERGE, number("a", 1)));
    world.rest_for(6);
    world.run(Step::Publish(0, PictureChange::Clear, Value::Map(Vec::new())));
    world.rest_for(6);
    world.run(Step::Publish(0, MERGE, number("b", 1)));
    world.read_all();
    let node = &mut world.nodes[0];
    for (ms, is_due) in [(EVERY_MS - 1, false), (EVERY_MS, true)] {
        node.sweep(true, world.log.now_ms + ms);
        assert_eq!(!node.proposals.is_empty(), is_due, "{ms}");
    }
}

/// Entries are read with numbers of 53 bits only; this holds of all others, too.
#[test]
fn picture_of_the_largest_serial_number_is_taken_or_dropped() {
    for (phase_is_done, text, is_taken) in
        [(false, "x", false), (true, "x", false), (false, "", true), (true, "", true)]
    {
        let mut world = World::new();
        if phase_is_done {
            world.rest();
        }
        let count = u32::from(!text.is_empty());
        let piece =
            PicturePiece { serial: u64::MAX, index: 0, count, bytes: text.as_bytes().into() };
        let hub = &mut world.nodes[0].hub;
        for _ in 0..2 {
            if let Some(bytes) = hub.note_picture_piece((APP, NAMES[0]), &piece, false) {
                let picture = (u64::MAX, &*bytes);
                let with = (envelope(), false);
                assert_eq!(hub.adopt_picture((APP, NAMES[0]), picture, with, 0), is_taken);
            }
        }
    }
}
