//! Entries of a cluster's log: whatever is read is bounded by its bytes, and is written as it was.

use polycast::cluster::entry::{part, read, write, write_node};

pub(crate) fn run(data: &[u8]) {
    let Ok(entry) = read(data) else { return };
    let parts: Vec<Vec<u8>> = entry.events.iter().map(part).collect();
    assert!(parts.iter().map(Vec::len).sum::<usize>() <= data.len() + 4 * parts.len());
    let parts = parts.iter().map(|part| &**part);
    let written = write((entry.node, entry.number), entry.app, entry.channel, parts);
    let again = read(&written).expect("an entry");
    assert_eq!((again.events, again.skipped), (entry.events, 0));
    for node in &entry.nodes {
        let written = write_node((entry.node, entry.number), node);
        assert_eq!(read(&written).expect("an entry").nodes, [node.clone()]);
    }
}
