//! Entries that are written and read, the golden entries, and entries that are cut or invented.

use super::*;
use crate::hub::{CountedKind, CountingStep, EventKey, SubscriberCount};
use proptest::prelude::*;

fn frame(excluded: Option<[u64; 2]>, frame: &[u8]) -> EventPart<'_> {
    EventPart { excluded, content: PartContent::Frame { remembered_s: None, cached: None, frame } }
}

fn written(events: &[EventPart<'_>]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = events.iter().map(part).collect();
    write((0x0123_4567_89ab_cdef, 300), "app", "private-a", parts.iter().map(|part| &**part))
}

/// One event of each form.
fn all_forms() -> Vec<EventPart<'static>> {
    let cached = CachedPart { ttl_ms: 1_800_000, event: "price", data: "{\"a\":1}" };
    vec![
        frame(None, b"\x81\x02{}"),
        frame(Some([1, u64::MAX]), b"\x81\x02{}"),
        EventPart {
            excluded: None,
            content: PartContent::Frame {
                remembered_s: None,
                cached: Some(cached),
                frame: b"\x81\x02{}",
            },
        },
        EventPart { excluded: None, content: PartContent::Close { code: 4009, reason: "Over" } },
    ]
}

/// The file has the entry in hexadecimal digits. It must not be changed: nodes of the last release
/// write such entries.
#[test]
fn cluster_entry_of_format_1_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1.hex");
    let written = written(&all_forms());
    let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, golden.trim());
    let entry = read(&written).expect("an entry");
    assert_eq!((entry.node, entry.number), (0x0123_4567_89ab_cdef, 300));
    assert_eq!((entry.app, entry.channel), ("app", "private-a"));
    assert_eq!((entry.events, entry.skipped), (all_forms(), 0));
}

fn node_part() -> NodePart<'static> {
    NodePart {
        node: 0xfedc_ba98_7654_3210,
        state: NodePhase::Up,
        renewal: 300,
        formats: (1, 2),
        apps: 0x0102_0304_0506_0708,
        connections: 12_345,
        release: "0.9.1",
    }
}

/// As the file of events: nodes of all releases must read each other's entries.
#[test]
fn cluster_entry_of_a_node_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-node.hex");
    let written = write_node((0x0123_4567_89ab_cdef, 7), &node_part());
    let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, golden.trim());
    let entry = read(&written).expect("an entry");
    assert_eq!((entry.node, entry.number), (0x0123_4567_89ab_cdef, 7));
    assert_eq!((entry.app, entry.channel, entry.events.len()), ("", "", 0));
    assert_eq!((entry.nodes, entry.skipped), (vec![node_part()], 0));
}

fn states() -> Vec<StatePart<'static>> {
    let (node, user) = (0xfedc_ba98_7654_3210, "ada");
    let frames = Some([b"\x81\x01+".as_slice(), b"\x81\x01-"]);
    let present = |info, frames| Some(PresentPart { max: 100, info, frames });
    vec![
        StatePart::Member { node, user, present: present(Some("{\"a\":1}"), frames) },
        StatePart::Member { node, user, present: present(None, None) },
        StatePart::Member { node, user, present: None },
        StatePart::Count { node, count: 300.into() },
    ]
}

fn written_state(state: &StatePart<'_>) -> Vec<u8> {
    let is_member = matches!(state, StatePart::Member { .. });
    let author = (0x0123_4567_89ab_cdef, 7);
    write_state(author, "app", "presence-a", is_member, &state_part(state))
}

/// As the file of events.
#[test]
fn cluster_entry_of_a_state_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-states.hex");
    let golden: Vec<&str> = golden.lines().collect();
    let mut digits = Vec::new();
    for state in states() {
        let written = written_state(&state);
        digits.push(written.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let entry = read(&written).expect("an entry");
        assert_eq!((entry.app, entry.channel, entry.number), ("app", "presence-a", 7));
        assert_eq!((entry.states, entry.events, entry.skipped), (vec![state], vec![], 0));
    }
    assert_eq!(digits, golden, "{}", digits.join("\n"));
}

#[test]
fn cluster_entry_of_a_state_that_is_cut_or_has_other_flags_is_malformed() {
    for state in states() {
        let written = written_state(&state);
        for end in 1..written.len() {
            assert_eq!(read(&written[..end]), Err(NotAnEntry::Malformed), "{end}");
        }
    }
    let part = state_part(&states()[0]);
    for flags in [2, 4, 6, 8, 9, 15, 0] {
        let wrong = [&[flags], &part[1..]].concat();
        let written = write_state((1, 1), "app", "a", true, &wrong);
        assert_eq!(read(&written), Err(NotAnEntry::Malformed), "{flags}");
    }
    let mut large = 1u64.to_le_bytes().to_vec();
    push_number(&mut large, u64::from(u32::MAX) + 1);
    assert_eq!(read(&write_state((1, 1), "app", "a", false, &large)), Err(NotAnEntry::Malformed));
}

#[test]
fn cluster_entry_of_a_node_has_each_state_and_may_be_longer() {
    for state in [NodePhase::Joining, NodePhase::Up, NodePhase::Leaving, NodePhase::Dead] {
        let part = NodePart { state, ..node_part() };
        let written = write_node((1, 1), &part);
        assert_eq!(read(&written).expect("an entry").nodes, [part]);
    }
    let written = write_node((1, 1), &node_part());
    for end in 1..written.len() {
        assert_eq!(read(&written[..end]), Err(NotAnEntry::Malformed), "{end}");
    }
    // The part's kind, length and first byte, which is the state.
    let at = 1 + 8 + 1 + 2 + 1;
    assert_eq!(written[at], 4);
    let mut longer = [&written[..], &[1, 2, 3]].concat();
    longer[at + 1] += 3;
    assert_eq!(read(&longer).expect("an entry").nodes, [node_part()], "of a later release");
    let mut unknown = written.clone();
    unknown[at + 2] = 4;
    assert_eq!(read(&unknown), Err(NotAnEntry::Malformed), "an unknown state");
    let upside_down = NodePart { formats: (2, 1), ..node_part() };
    assert_eq!(read(&write_node((1, 1), &upside_down)), Err(NotAnEntry::Malformed));
}

#[test]
fn cluster_entry_of_a_node_has_a_release_of_at_most_64_bytes() {
    let (longest, longer) = ("x".repeat(64), "x".repeat(65));
    for (release, is_read) in
        [("", true), (env!("CARGO_PKG_VERSION"), true), (&longest, true), (&longer, false)]
    {
        let written = write_node((1, 1), &NodePart { release, ..node_part() });
        assert_eq!(read(&written).is_ok(), is_read, "{release}");
    }
}

/// A piece in the middle of a document, and the mark of an epoch of which only the number is known.
fn epochs() -> [EpochPart<'static>; 2] {
    let digest = 0x1122_3344_5566_7788;
    [
        EpochPart { number: 5_000_000, digest, bytes: 300, offset: 200, piece: b"{\"TxBlock\":" },
        EpochPart { number: 1, digest, bytes: 0, offset: 0, piece: b"" },
    ]
}

fn written_epochs() -> Vec<u8> {
    let parts = epochs().map(|epoch| epoch_part(&epoch));
    write_epoch((7, 1), "@zilliqa", "epochs", parts.iter().map(|part| &**part))
}

/// The file must not be changed, either.
#[test]
fn cluster_entry_of_epochs_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/epoch-1.hex");
    let written = written_epochs();
    let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, golden.trim());
    let entry = read(&written).expect("an entry");
    assert_eq!((entry.app, entry.channel), ("@zilliqa", "epochs"));
    assert_eq!((&*entry.epochs, entry.events.len(), entry.skipped), (&epochs()[..], 0, 0));
    for end in 1..written.len() {
        assert!(read(&written[..end]).is_err(), "{end}");
    }
}

#[test]
fn cluster_entry_epoch_is_a_piece_of_its_document() {
    for (bytes, offset, piece, is_read) in [
        (10, 0, &b"0123456789"[..], true),
        (10, 0, b"01234567890", false),
        (10, 9, b"9", true),
        (10, 10, b"9", false),
        (10, 5, b"", false),
        (0, 0, b"", true),
        (0, 1, b"", false),
        (u64::MAX, u64::MAX, b"9", false),
    ] {
        let part = epoch_part(&EpochPart { number: 1, digest: 2, bytes, offset, piece });
        let entry = write_epoch((1, 1), "a", "b", [&*part].into_iter());
        assert_eq!(read(&entry).is_ok(), is_read, "{bytes} {offset} {piece:?}");
    }
}

/// No epoch has the last number, so that there is one after each.
#[test]
fn cluster_entry_epoch_has_not_the_last_number() {
    for (number, is_read) in [(0, true), (u64::MAX - 1, true), (u64::MAX, false)] {
        for (bytes, piece) in [(1, &b"x"[..]), (0, b"")] {
            let part = epoch_part(&EpochPart { number, digest: 2, bytes, offset: 0, piece });
            let entry = write_epoch((1, 1), "@zilliqa", "b", [&*part].into_iter());
            assert_eq!(read(&entry).is_ok(), is_read, "{number} {bytes}");
        }
    }
}

fn limits() -> [LimitPart; 2] {
    let reserved = vec![(0xfedc_ba98_7654_3210, 300), (7, 0), (8, u32::MAX)];
    let settled_in = Some(0x1122_3344_5566_7788);
    [LimitPart { settled_in, reserved }, LimitPart::default()]
}

/// As the file of events.
#[test]
fn cluster_entry_of_a_miss_stays_as_it_is() {
    for (is_missed, after, golden) in [
        (
            true,
            300,
            "01efcdab8967452301070361707007636163686".to_owned()
                + "52d61010c0b011032547698badcfeac02",
        ),
        (
            false,
            0,
            "01efcdab8967452301070361707007636163686".to_owned()
                + "52d61010c0a001032547698badcfe00",
        ),
    ] {
        let state = StatePart::Miss { node: 0xfedc_ba98_7654_3210, is_missed, after };
        let author = (0x0123_4567_89ab_cdef, 7);
        let written = write_miss(author, "app", "cache-a", &state_part(&state));
        let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, golden);
        assert_eq!(read(&written).map(|entry| entry.states), Ok(vec![state]));
        let mut other = written.clone();
        other[written.len() - if is_missed { 11 } else { 10 }] = 2;
        assert_eq!(read(&other), Err(NotAnEntry::Malformed), "an unknown flag");
    }
}

/// As the file of events.
#[test]
fn cluster_entry_of_counting_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-counting.hex");
    let golden: Vec<&str> = golden.lines().collect();
    let mut digits = Vec::new();
    let stated = |question, core, cores| CountingStep::Stated { question, core, cores };
    let parts = |kind, question, others: &[CountingStep]| {
        let steps = [CountingStep::Asked(0), stated(question, 0, 1), stated(question, 299, 300)];
        let all = steps.into_iter().chain(others.iter().copied());
        all.map(|step| CountingPart { node: NODE, kind, step }).collect::<Vec<_>>()
    };
    let others = [CountingStep::Read, CountingStep::Ended];
    let all = [
        parts(CountedKind::Unleased, 0, &[]),
        parts(CountedKind::Totals, 300, &others),
        parts(CountedKind::ByView, 300, &others),
    ]
    .concat();
    for part in all {
        let written = written_counting(&part, &part.bytes());
        digits.push(written.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let entry = read(&written).expect("an entry");
        assert_eq!((entry.app, entry.channel, entry.number), ("app", "", 7));
        assert_eq!((entry.counting, entry.skipped), (Some(part), 0));
        assert!(!entry.is_empty());
        let longer = [&part.bytes()[..], &[0]].concat();
        assert_eq!(read(&written_counting(&part, &longer)), Err(NotAnEntry::Malformed));
        for (core, cores) in [(0, 0), (3, 3)] {
            let part = CountingPart { step: stated(0, core, cores), ..part };
            let written = written_counting(&part, &part.bytes());
            assert_eq!(read(&written), Err(NotAnEntry::Malformed), "no such core");
        }
    }
    assert_eq!(digits, golden, "{}", digits.join("\n"));
    let part = CountingPart { node: 1, kind: CountedKind::ByView, step: CountingStep::Read };
    let later = [&[8], &part.bytes()[1..]].concat();
    assert_eq!(read(&written_counting(&part, &later)), Err(NotAnEntry::Malformed));
}

const NODE: u64 = 0xfedc_ba98_7654_3210;

fn written_counting(part: &CountingPart, bytes: &[u8]) -> Vec<u8> {
    write_counting((0x0123_4567_89ab_cdef, 7), "app", part.kind, bytes)
}

/// As the file of events. The first line is an entry of the last release: only one part more
/// follows.
#[test]
fn cluster_entry_of_numbers_by_view_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-views.hex");
    let views = vec![(0x1122_3344_5566_7788, 1), (u64::MAX, 299)];
    let state = StatePart::Count { node: NODE, count: SubscriberCount { all: 301, views } };
    let written = written_state(&state);
    let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, golden.trim());
    let entry = read(&written).expect("an entry");
    assert_eq!((entry.states, entry.skipped), (vec![state], 0));
    // To a release before this one the second part is of an unknown kind.
    let count = written_state(&StatePart::Count { node: NODE, count: 301.into() });
    let head = 1 + 8 + 1 + 4 + 11;
    assert_eq!((count[head], written[head]), (1, 2), "the number of parts");
    let parts = &count[head + 1..];
    assert_eq!(&written[head + 1..][..parts.len()], parts);
    assert_eq!(written[head + 1 + parts.len()], VIEWS);
    for end in 1..written.len() {
        assert_eq!(read(&written[..end]), Err(NotAnEntry::Malformed), "{end}");
    }
}

#[test]
fn cluster_entry_of_numbers_by_view_is_malformed_if_they_are_not_in_order_or_of_no_count() {
    for views in [vec![(2, 1), (1, 1)], vec![(1, 1), (1, 1)]] {
        let state = StatePart::Count { node: 1, count: SubscriberCount { all: 2, views } };
        assert_eq!(read(&written_state(&state)), Err(NotAnEntry::Malformed));
    }
    let views = [&1u64.to_le_bytes()[..], &[1]].concat();
    let alone = write_parts(((1, 1), "app", "a"), VIEWS, [&views[..]].into_iter());
    assert_eq!(read(&alone), Err(NotAnEntry::Malformed));
    let member = state_part(&states()[2]);
    let mut after_member = write_head(((1, 1), "app", "a"), 2);
    push_part(&mut after_member, MEMBER, &member);
    push_part(&mut after_member, VIEWS, &views);
    assert_eq!(read(&after_member), Err(NotAnEntry::Malformed));
}

/// As the file of events.
#[test]
fn cluster_entry_of_a_limit_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-limits.hex");
    let golden: Vec<&str> = golden.lines().collect();
    let mut digits = Vec::new();
    for limit in limits() {
        let written = write_limit((0x0123_4567_89ab_cdef, 7), "app", &limit);
        digits.push(written.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let entry = read(&written).expect("an entry");
        assert_eq!((entry.app, entry.channel, entry.number), ("app", "", 7));
        assert_eq!((entry.limit, entry.events, entry.skipped), (Some(limit), vec![], 0));
        for end in 1..written.len() {
            assert_eq!(read(&written[..end]), Err(NotAnEntry::Malformed), "{end}");
        }
    }
    assert_eq!(digits, golden, "{}", digits.join("\n"));
}

#[test]
fn cluster_entry_of_a_limit_has_known_flags_and_numbers_of_32_bits() {
    let with = |flags: u8, count: u64| {
        let mut bytes = vec![flags];
        bytes.extend_from_slice(&1u64.to_le_bytes());
        push_number(&mut bytes, 1);
        bytes.extend_from_slice(&7u64.to_le_bytes());
        push_number(&mut bytes, count);
        read(&write_parts(((1, 1), "a", ""), LIMIT, [&*bytes].into_iter())).map(|entry| entry.limit)
    };
    let read = |settled_in, count| Ok(Some(LimitPart { settled_in, reserved: vec![(7, count)] }));
    assert_eq!(with(1, u32::MAX.into()), read(Some(1), u32::MAX));
    assert_eq!(with(0, 1), read(None, 1));
    assert_eq!(with(0, 1 << 32), Err(NotAnEntry::Malformed));
    assert_eq!(with(2, 1), Err(NotAnEntry::Malformed));
}

/// Events that a history remembers.
fn remembered() -> Vec<EventPart<'static>> {
    let cached = CachedPart { ttl_ms: 1_800_000, event: "price", data: "{\"a\":1}" };
    let event = |excluded, ttl_s, cached| EventPart {
        excluded,
        content: PartContent::Frame { remembered_s: Some(ttl_s), cached, frame: b"\x81\x02{}" },
    };
    vec![event(None, 1, None), event(Some([1, 2]), 86_400, None), event(None, 120, Some(cached))]
}

/// As the other file of format 1.
#[test]
fn cluster_entry_of_remembered_events_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-history.hex");
    let written = written(&remembered());
    let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, golden.trim());
    assert_eq!(read(&written).expect("an entry").events, remembered());
    // The time has 32 bits.
    let mut long = part(&remembered()[0]);
    assert_eq!(long.remove(1), 1);
    let with = |number: u64| {
        let mut bytes = vec![long[0]];
        push_number(&mut bytes, number);
        bytes.extend_from_slice(&long[1..]);
        write((1, 1), "a", "c", [&*bytes].into_iter())
    };
    assert!(read(&with(u32::MAX.into())).is_ok());
    assert_eq!(read(&with(1 << 32)), Err(NotAnEntry::Malformed));
}

/// Events of which the first and the last have idempotency keys.
fn written_keys(places: &[usize]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = all_forms().iter().map(part).collect();
    let keys: Vec<KeyPart> = places.iter().map(|event| key_part(*event)).collect();
    let head = ((0x0123_4567_89ab_cdef, 300), "app", "private-a");
    write_with_keys(head, parts.iter().map(|part| &**part), &keys)
}

fn key_part(event: usize) -> KeyPart {
    let key = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
    KeyPart { event, key: EventKey { key, request: !key, index: 300 + event as u16 } }
}

/// As the other files of format 1.
#[test]
fn cluster_entry_of_events_with_keys_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-keys.hex");
    let written = written_keys(&[0, 3]);
    let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, golden.trim());
    let entry = read(&written).expect("an entry");
    assert_eq!((entry.events, entry.skipped), (all_forms(), 0));
    assert_eq!(entry.keys, [key_part(0), key_part(3)]);
    for end in 1..written.len() {
        assert_eq!(read(&written[..end]), Err(NotAnEntry::Malformed), "{end}");
    }
}

const TOPIC: (&str, &str) = ("@zenith", "Market\0S!a");

fn pieces() -> [PicturePart<'static>; 2] {
    let serial = 300 * 64;
    [
        PicturePart { serial, index: 1, count: 2, piece: b"\x02\x08" },
        PicturePart { serial, index: 0, count: 0, piece: b"" },
    ]
}

/// As the other files: events in the form of their dialect, a piece of a picture, and its end.
#[test]
fn cluster_entry_of_topics_and_pictures_stays_as_it_is() {
    let golden = include_str!("../../../tests/fixtures/cluster/format-1-topics.hex");
    let golden: Vec<&str> = golden.lines().collect();
    let (author, (app, channel)) = ((0x0123_4567_89ab_cdef, 7), TOPIC);
    // {"a": 1} as a change of a merged picture, and the end of the topic.
    let own: [&[u8]; 2] = [b"\x05\x03\x08\x01\x01a\x03\x02", b"\x02\x01"];
    let mut entries = vec![write_own(author, app, channel, own.into_iter())];
    entries
        .extend(pieces().iter().map(|it| write_picture(author, app, channel, &picture_part(it))));
    let digits = |entry: &Vec<u8>| entry.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits: Vec<String> = entries.iter().map(digits).collect();
    assert_eq!(digits, golden, "{}", digits.join("\n"));
    let first = read(&entries[0]).expect("an entry");
    assert_eq!((first.app, first.channel, &*first.own), (app, channel, &own[..]));
    assert!(!first.is_empty());
    for (entry, piece) in entries[1..].iter().zip(pieces()) {
        let read_entry = read(entry).expect("an entry");
        assert!(!read_entry.is_empty());
        assert_eq!(read_entry.pictures, [piece]);
        for end in 1..entry.len() {
            assert!(read(&entry[..end]).is_err(), "{end}");
        }
    }
}

#[test]
fn cluster_entry_piece_of_a_picture_has_bytes_or_is_an_end() {
    for (index, count, piece, is_read) in [
        (0, 1, &b"x"[..], true),
        (0, 1, b"", false),
        (1, 1, b"x", false),
        (1, 1, b"", true),
        (0, 0, b"", true),
        (u32::MAX, u32::MAX, b"", true),
    ] {
        let part = picture_part(&PicturePart { serial: 1, index, count, piece });
        let entry = write_picture((1, 1), "a", "b", &part);
        assert_eq!(read(&entry).is_ok(), is_read, "{index} {count} {piece:?}");
    }
}

#[test]
fn cluster_entry_piece_of_a_picture_has_a_serial_number_of_53_bits() {
    for (serial, is_read) in [(0, true), ((1 << 53) - 1, true), (1 << 53, false), (u64::MAX, false)]
    {
        for (count, piece) in [(1, &b"x"[..]), (0, b"")] {
            let part = picture_part(&PicturePart { serial, index: 0, count, piece });
            let entry = write_picture((1, 1), "@zenith", "b", &part);
            assert_eq!(read(&entry).is_ok(), is_read, "{serial} {count}");
        }
    }
}

#[test]
fn cluster_entry_keys_are_those_of_its_events_in_order() {
    for (places, is_read) in [
        (&[][..], true),
        (&[0, 1, 2, 3], true),
        (&[3], true),
        (&[4], false),
        (&[1, 1], false),
        (&[1, 0], false),
    ] {
        assert_eq!(read(&written_keys(places)).is_ok(), is_read, "{places:?}");
    }
    // The number of an event in its request has 16 bits.
    let bytes = |index: u64| {
        let mut bytes = vec![0; 33];
        push_number(&mut bytes, index);
        let mut out = write_head(((1, 1), "a", "b"), 2);
        push_part(&mut out, EVENT, &part(&frame(None, b"f")));
        push_part(&mut out, KEY, &bytes);
        out
    };
    let index = |index| read(&bytes(index)).map(|entry| entry.keys[0].key.index);
    assert_eq!((index(65_535), index(65_536)), (Ok(65_535), Err(NotAnEntry::Malformed)));
}

#[test]
fn cluster_entry_skips_kinds_that_it_does_not_know() {
    let mut bytes = written(&[frame(None, b"f")]);
    // The number of parts, and a part of kind 99 with two bytes.
    let count = bytes.len() - 5;
    assert_eq!(bytes[count], 1);
    bytes[count] = 2;
    bytes.extend([99, 2, 0, 0]);
    let entry = read(&bytes).expect("an entry");
    assert_eq!((entry.events, entry.skipped), (vec![frame(None, b"f")], 1));
}

#[test]
fn cluster_entry_is_read_in_the_formats_of_a_release_and_of_a_node_in_all() {
    let mut event = written(&all_forms());
    for (format, is_read) in [(1, false), (2, true), (3, true), (4, false)] {
        set_format(&mut event, format);
        let read = read_formats(&event, (2, 3));
        match is_read {
            true => assert_eq!(read.map(|it| it.events), Ok(all_forms()), "{format}"),
            false => assert_eq!(read, Err(NotAnEntry::Format(format))),
        }
    }
    let node = write_node((1, 1), &node_part());
    assert_eq!(read_formats(&node, (2, 3)).map(|it| it.nodes), Ok(vec![node_part()]));
    let empty = write((1, 1), "", "", [].into_iter());
    assert_eq!((empty[0], read_formats(&empty, (2, 3)).is_ok_and(|it| it.is_empty())), (1, true));
    set_format(&mut [], 1);
}

#[test]
fn cluster_entry_of_another_format_is_named() {
    let mut bytes = written(&all_forms());
    bytes[0] = 2;
    assert_eq!(read(&bytes), Err(NotAnEntry::Format(2)));
    assert_eq!(read(&[]), Err(NotAnEntry::Malformed));
}

#[test]
fn cluster_entry_that_is_cut_or_longer_is_malformed() {
    let bytes = written(&all_forms());
    for end in 1..bytes.len() {
        assert_eq!(read(&bytes[..end]), Err(NotAnEntry::Malformed), "{end}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(read(&longer), Err(NotAnEntry::Malformed));
}

proptest! {
    #[test]
    fn cluster_entry_round_trips(
        app in "[a-z]{0,9}",
        channel in "\\PC{0,40}",
        frames in prop::collection::vec(
            (prop::option::of(any::<[u64; 2]>()), prop::collection::vec(any::<u8>(), 0..300)),
            0..5,
        ),
        node: u64,
        number: u64,
    ) {
        let events: Vec<_> = frames.iter().map(|(excluded, it)| frame(*excluded, it)).collect();
        let parts: Vec<Vec<u8>> = events.iter().map(part).collect();
        let bytes = write((node, number), &app, &channel, parts.iter().map(|part| &**part));
        let (app, channel) = (&*app, &*channel);
        let expected = Entry {
            node,
            number,
            app,
            channel,
            events: events.clone(),
            keys: vec![],
            states: vec![],
            nodes: vec![],
            epochs: vec![],
            limit: None,
            counting: None,
            own: vec![],
            pictures: vec![],
            skipped: 0,
        };
        prop_assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn cluster_entry_of_any_bytes_is_read_or_refused(bytes: Vec<u8>) {
        let bytes = [&[FORMATS.0], &bytes[..]].concat();
        let _ = read(&bytes);
    }
}
