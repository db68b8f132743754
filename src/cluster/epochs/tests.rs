//! Epochs that are cut into pieces and put together again, in any order and of several nodes.

use super::super::entry::{self, Entry};
use super::*;
use crate::dialect::zilliqa::ZilliqaMessage;
use crate::dialect::zilliqa::epoch::{Epoch, Strictness};
use std::sync::Arc;

const MAX: u64 = 1 << 20;

/// The event of an epoch whose document is padded to have exactly this size.
fn epoch(number: u64, bytes: usize) -> Event {
    let text = |pad: usize| {
        let pad = "x".repeat(pad);
        format!(r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}},"p":"{pad}"}},"TxHashes":[]}}"#)
    };
    let text = text(bytes - text(0).len());
    assert_eq!(text.len(), bytes);
    let epoch = Epoch::read(text, Strictness::Refuse).expect("an epoch");
    Event::message(ZilliqaMessage::Epoch(Arc::new(epoch)).into())
}

fn entry_of(part: &[u8]) -> Vec<u8> {
    entry::write_epoch((1, 1), "@zilliqa", "epochs", [part].into_iter())
}

fn read(bytes: &[u8]) -> EpochPart<'_> {
    let Entry { epochs, .. } = entry::read(bytes).expect("an entry");
    epochs.into_iter().next().expect("a piece")
}

/// The entries and ids of all pieces of an epoch.
fn pieces(event: Event) -> Vec<(String, Vec<u8>)> {
    let mut outbox = EpochOutbox::new();
    outbox.push(event, Some(7)).expect("room");
    let mut pieces = Vec::new();
    loop {
        let part = outbox.next().expect("a piece");
        outbox.sent();
        assert!(outbox.next().is_none(), "one at a time");
        pieces.push((outbox.id(), entry_of(&part)));
        if outbox.stored() == Some(7) {
            assert!(outbox.is_empty());
            return pieces;
        }
    }
}

/// Pieces are as large as the engine accepts, from the next one on.
#[test]
fn cluster_epoch_goes_on_in_pieces_of_another_size() {
    let mut outbox = EpochOutbox::new();
    outbox.push(epoch(5, 4 * PIECE_BYTES), Some(7)).expect("room");
    let mut assembly = EpochAssembly::default();
    let mut sizes = Vec::new();
    for change in [0, PIECE_BYTES / 4, 0, 0, PIECE_BYTES, 0, 0] {
        let entry = entry_of(&outbox.next().expect("a piece"));
        outbox.sent();
        if change > 0 {
            outbox.set_piece_bytes(change);
        }
        sizes.push(read(&entry).piece.len() * 4 / PIECE_BYTES);
        let whole = take(&mut assembly, &entry);
        let stored = outbox.stored();
        assert_eq!((whole.is_some(), stored.is_some()), (sizes.len() == 7, sizes.len() == 7));
    }
    assert_eq!(sizes, [4, 4, 1, 1, 1, 4, 1]);
    assert!(outbox.is_empty());
    outbox.set_piece_bytes(100);
    outbox.push(epoch(6, 150), Some(8)).expect("room");
    outbox.next().expect("a piece");
    outbox.sent();
    // What is given up does not keep its size either.
    outbox.set_piece_bytes(200);
    outbox.failed(Unpublished::Refused);
    outbox.push(epoch(7, 150), Some(9)).expect("room");
    assert_eq!(read(&entry_of(&outbox.next().expect("a piece"))).piece.len(), 150);
}

fn take(assembly: &mut EpochAssembly, entry: &[u8]) -> Option<usize> {
    assembly.take(&read(entry), MAX).expect("a piece").map(|document| document.len())
}

#[test]
fn cluster_epoch_goes_in_pieces_of_the_maximum_size() {
    for (bytes, count) in [(100, 1), (PIECE_BYTES, 1), (PIECE_BYTES + 1, 2), (3 * PIECE_BYTES, 3)] {
        let pieces = pieces(epoch(5, bytes));
        assert_eq!(pieces.len(), count, "{bytes}");
        assert_eq!(pieces[0].0 == "epoch-5", count == 1);
        let mut assembly = EpochAssembly::default();
        let (last, first) = pieces.split_last().expect("pieces");
        for (id, entry) in first {
            assert!(id.starts_with("epoch-5-"), "{id}");
            assert_eq!(take(&mut assembly, entry), None);
            assert_eq!(take(&mut assembly, entry), None, "that it has already");
        }
        assert_eq!(take(&mut assembly, &last.1), Some(bytes));
        assert!(assembly.0.is_empty());
    }
}

#[test]
fn cluster_epoch_of_two_nodes_is_the_first_whole_one() {
    let (one, two) = (pieces(epoch(5, 2 * PIECE_BYTES)), pieces(epoch(5, 2 * PIECE_BYTES + 9)));
    assert!(one.iter().zip(&two).all(|(one, two)| one.0 != two.0));
    let mut assembly = EpochAssembly::default();
    assert_eq!(take(&mut assembly, &one[0].1), None);
    assert_eq!(take(&mut assembly, &two[0].1), None);
    assert_eq!(take(&mut assembly, &two[1].1), None);
    assert_eq!(take(&mut assembly, &one[1].1), Some(2 * PIECE_BYTES));
    assert!(assembly.0.is_empty(), "the other one cannot count any more");
    assert_eq!(take(&mut assembly, &two[2].1), None);
    // The same document has the same ids on all nodes.
    assert_eq!(pieces(epoch(6, 2 * PIECE_BYTES)), pieces(epoch(6, 2 * PIECE_BYTES)));
}

#[test]
fn cluster_epoch_without_its_beginning_is_ignored() {
    let pieces = pieces(epoch(5, 3 * PIECE_BYTES));
    let mut assembly = EpochAssembly::default();
    for (_, entry) in &pieces[1..] {
        assert_eq!(take(&mut assembly, entry), None);
    }
    assert_eq!(take(&mut assembly, &pieces[0].1), None);
    assert_eq!(take(&mut assembly, &pieces[2].1), None, "the one before it is missing");
    assert_eq!(take(&mut assembly, &pieces[1].1), None);
    assert_eq!(take(&mut assembly, &pieces[2].1), Some(3 * PIECE_BYTES));
}

#[test]
fn cluster_epoch_assembly_is_bounded() {
    let mut assembly = EpochAssembly::default();
    let begun: Vec<_> =
        (1..=PARTIAL as u64 + 1).map(|number| pieces(epoch(number, PIECE_BYTES + 1))).collect();
    for pieces in &begun {
        assert_eq!(take(&mut assembly, &pieces[0].1), None);
    }
    assert_eq!(assembly.0.len(), PARTIAL);
    assert_eq!(take(&mut assembly, &begun[0][1].1), None, "the oldest was given up");
    assert_eq!(take(&mut assembly, &begun[1][1].1), Some(PIECE_BYTES + 1));
    let one = pieces(epoch(9, 1000));
    assert_eq!(assembly.take(&read(&one[0].1), 999), Err(NotAPiece));
    assert!(assembly.take(&read(&one[0].1), 1000).is_ok_and(|found| found.is_some()));
}

#[test]
fn cluster_epoch_with_a_wrong_digest_is_refused() {
    let part = EpochPart { number: 1, digest: 1, bytes: 1, offset: 0, piece: b"x" };
    assert_eq!(EpochAssembly::default().take(&part, MAX), Err(NotAPiece));
}

#[test]
fn cluster_epoch_outbox_is_bounded_and_fails_together() {
    let mut outbox = EpochOutbox::new();
    for number in 0..WAITING {
        assert!(outbox.push(epoch(number as u64, 100), Some(number)).is_ok());
    }
    assert_eq!(outbox.push(epoch(99, 100), Some(99)), Err(Some(99)));
    assert_eq!(outbox.push(Event::default(), None::<usize>), Err(None), "it is no epoch");
    assert!(outbox.next().is_some());
    outbox.sent();
    let failed = outbox.failed(Unpublished::Unknown);
    assert_eq!(failed.len(), WAITING);
    assert_eq!(failed[0], (Some(0), Unpublished::Unknown));
    assert!(failed[1..].iter().all(|(_, why)| *why == Unpublished::Refused), "never sent");
    assert!(outbox.is_empty() && outbox.next().is_none());
}

#[test]
fn cluster_epoch_mark_has_an_id_of_its_own() {
    let mark = Event::message(ZilliqaMessage::Begin(7).into());
    let pieces = pieces(mark);
    assert_eq!((pieces.len(), &*pieces[0].0), (1, "begin-7"));
    assert_eq!(take(&mut EpochAssembly::default(), &pieces[0].1), Some(0));
}
