//! Tests of the bound on waiting channel events, and of which events are dropped at the bound.

use super::*;

/// Subscribes connection `index` of core 0 to a channel of application `app`.
fn join(world: &mut World, app: u32, index: u32, name: &str) {
    let join = Join {
        slot: slot(index),
        app,
        name,
        max: usize::MAX,
        is_public: false,
        request: None,
        form: Form::PUBLISHED,
    };
    drop(world.cores.hubs[0].join(join, NOW_MS, &mut world.cores.outgoing[0]));
}

#[test]
fn channel_events_over_the_bound_are_dropped_from_the_busiest_source() {
    let mut world = watched(1, EventMask::OCCUPANCY);
    join(&mut world, 0, 2, "theirs");
    let bytes = size_of::<ChannelEvent>() + "made-up-000000".len();
    let max = crate::limits::NOTICE_BYTES / bytes;
    for number in 0..max - 1 {
        join(&mut world, 0, 1, &format!("made-up-{number:06}"));
    }
    assert_eq!(world.cores.hubs[0].lost_channel_events(), []);
    for number in max..max + 100 {
        join(&mut world, 0, 1, &format!("made-up-{number:06}"));
    }
    // An event of another connection makes the busiest connection lose one more of its own.
    join(&mut world, 0, 3, "also-theirs");
    let lost: u64 = world.cores.hubs[0].lost_channel_events().iter().map(|(_, count)| count).sum();
    assert!((100..=102).contains(&lost), "{lost}");
    let message: Vec<ChannelEvent> =
        std::iter::from_fn(|| world.cores.hubs[0].next_channel_event()).collect();
    assert_eq!(message.len() as u64 + lost, max as u64 + 101);
    for name in ["theirs", "also-theirs", "made-up-000000"] {
        assert!(message.iter().any(|channel_event| &*channel_event.channel == name), "{name}");
    }
    assert!(!message.iter().any(|it| *it.channel == *format!("made-up-{:06}", max + 99)));
    assert!(!world.cores.hubs[0].has_channel_events());
}

#[test]
fn channel_events_of_a_channel_that_is_made_and_left_at_once_cancel_each_other() {
    let mut world = watched(2, EventMask::OCCUPANCY);
    for _ in 0..3 {
        for number in 0..10 {
            join(&mut world, 0, 1, &format!("made-up-{number}"));
        }
        assert!((0..10).all(|number| world.leave(0, 1, &format!("made-up-{number}"))));
        assert_eq!(world.channel_events(), []);
    }
    let cancelled =
        world.cores.hubs.iter_mut().map(|hub| hub.cancelled_channel_events()).sum::<u64>();
    assert_eq!(cancelled, 60);
    // An event that was handed over is not cancelled.
    world.join(0, 1, "a");
    assert_eq!(world.channel_events(), [ChannelEventKind::Occupied]);
    assert!(world.leave(0, 1, "a"));
    assert_eq!(world.channel_events(), [ChannelEventKind::Vacated]);
}

#[test]
fn channel_events_of_each_application_have_their_turn() {
    let mut world = watched(1, EventMask::OCCUPANCY);
    let wanted = Arc::from([EventMask::OCCUPANCY, EventMask::OCCUPANCY]);
    world.cores.hubs[0].watch(wanted, 0);
    (0..100).for_each(|number| join(&mut world, 0, 1, &format!("made-up-{number}")));
    join(&mut world, 1, 2, "theirs");
    let apps: Vec<u32> = std::iter::from_fn(|| world.cores.hubs[0].next_channel_event())
        .map(|it| it.app)
        .take(3)
        .collect();
    assert_eq!(apps, [0, 1, 0]);
}
