//! Entries of a cluster's log: whatever is read is bounded by its bytes, and is written as it was.

use crate::machine::config;
use polycast::cluster::entry::{
    PicturePart, StatePart, epoch_part, part, picture_part, read, state_part, write_epoch,
    write_node, write_own, write_picture, write_state, write_with_keys,
};
use polycast::dialect::{Env, Hub, OutgoingMail, event_into_log, event_of_log, picture_envelope};
use polycast::hub::{Hasher, LogMark, LogStart, PicturePiece, StateTimes};

/// An application of which nobody counts subscribers.
const APP: u32 = u32::MAX;

pub(crate) fn run(data: &[u8]) {
    let Ok(entry) = read(data) else { return };
    let author = (entry.node, entry.number);
    let parts: Vec<Vec<u8>> = entry.events.iter().map(part).collect();
    assert!(parts.iter().map(Vec::len).sum::<usize>() <= data.len() + 4 * parts.len());
    let parts = parts.iter().map(|part| &**part);
    let head = ((entry.node, entry.number), entry.app, entry.channel);
    let written = write_with_keys(head, parts, &entry.keys);
    let again = read(&written).expect("an entry");
    assert_eq!((again.events, again.keys, again.skipped), (entry.events, entry.keys, 0));
    for state in &entry.states {
        let is_member = matches!(state, StatePart::Member { .. });
        let author = (entry.node, entry.number);
        let written = write_state(author, entry.app, entry.channel, is_member, &state_part(state));
        assert_eq!(read(&written).expect("an entry").states, std::slice::from_ref(state));
    }
    for node in &entry.nodes {
        let written = write_node((entry.node, entry.number), node);
        assert_eq!(read(&written).expect("an entry").nodes, std::slice::from_ref(node));
    }
    let pieces: Vec<Vec<u8>> = entry.epochs.iter().map(epoch_part).collect();
    assert!(pieces.iter().map(Vec::len).sum::<usize>() <= data.len());
    let pieces = pieces.iter().map(|part| &**part);
    let written = write_epoch((entry.node, entry.number), entry.app, entry.channel, pieces);
    assert_eq!(read(&written).expect("an entry").epochs, entry.epochs);
    let written = write_own(author, entry.app, entry.channel, entry.own.iter().copied());
    assert_eq!(read(&written).expect("an entry").own, entry.own);
    for picture in &entry.pictures {
        let part = picture_part(picture);
        let written = write_picture(author, entry.app, entry.channel, &part);
        assert_eq!(read(&written).expect("an entry").pictures, std::slice::from_ref(picture));
    }
    take_pictures(&entry.pictures, entry.channel);
    let env = Env::new(config("[zenith]\n"), 0).expect("an environment");
    let Some(app) = env.app_of_log_id(entry.app) else { return };
    for part in &entry.own {
        let Some(event) = event_of_log(&env, (app, entry.channel), part) else { continue };
        let written = event_into_log(&env, app, &event).expect("it is carried");
        assert!(written.len() <= part.len(), "numbers are written in their shortest form");
        let again = event_of_log(&env, (app, entry.channel), &written).expect("an event");
        assert_eq!(format!("{:?}", again.retain), format!("{:?}", event.retain));
    }
}

/// The home of a channel takes all pieces while it reads the log, and again when it has read it.
fn take_pictures(pictures: &[PicturePart<'_>], channel: &str) {
    if pictures.is_empty() {
        return;
    }
    let times = StateTimes { linger_ms: 0, count_every_ms: 1, picture_ms: 1, hold_ms: 1 };
    let start = LogStart { generation: 1, stream: 7, read_until: 1, known_after: 0, void_until: 0 };
    let mut hub = Hub::new(0, 1, Hasher::new(1), 1 << 20);
    hub.follow_log(times);
    let mut mail = OutgoingMail::new(1);
    hub.begin_log(start, &mut mail);
    for _ in 0..2 {
        for &PicturePart { serial, index, count, piece } in pictures {
            let piece = PicturePiece { serial, index, count, bytes: piece.into() };
            let Some(bytes) = hub.note_picture_piece((APP, channel), &piece, false) else {
                continue;
            };
            let envelope = picture_envelope((polycast::dialect::zenith::APP, channel));
            let with = (envelope.expect("of a topic"), true);
            hub.adopt_picture((APP, channel), (serial, &bytes), with, 1000);
        }
        hub.reach(LogMark::new(1, 1));
        hub.sweep(2000);
        while hub.is_visiting() {
            hub.visit_slice(&mut mail);
        }
        hub.list_due_pictures(true, 60_000);
        while hub.next_picture().is_some() {}
    }
}
