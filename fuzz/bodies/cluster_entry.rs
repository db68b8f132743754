//! Entries of a cluster's log: whatever is read is bounded by its bytes, and is written as it was.

use polycast::cluster::entry::{
    StatePart, epoch_part, part, read, state_part, write_epoch, write_node, write_state,
    write_with_keys,
};

pub(crate) fn run(data: &[u8]) {
    let Ok(entry) = read(data) else { return };
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
}
