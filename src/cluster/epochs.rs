//! Epochs of the Zilliqa dialect on their way into the log and out of it. An epoch may be larger
//! than what the engine takes at once, so it goes in pieces: the next one when the one before is
//! stored. All nodes put the pieces together in the order of the log, so all have an epoch at the
//! same place of the log.
//!
//! Several nodes may send the same epoch. The engine drops what it has, by the id of the piece.
//! If the documents differ, that which is whole first counts.

use super::entry::{EpochPart, epoch_part};
use super::queue::ChannelKey;
use crate::crypto::sha256;
use crate::dialect::{Event, zilliqa};
use crate::hub::{Ack, Unpublished};
use crate::runtime::PIECE_BYTES;
use std::collections::VecDeque;

/// The maximum number of epochs that wait for the engine.
pub(super) const WAITING: usize = 16;
/// The maximum number of documents that are put together at the same time: one of each node that
/// fetches epochs, and those that were given up.
const PARTIAL: usize = 8;

/// The epochs that a node sends. `T` says who waits for the answer.
#[derive(Debug)]
pub(super) struct EpochOutbox<T> {
    waiting: VecDeque<OutgoingEpoch<T>>,
    /// Whether a piece of the first one is in the queue.
    is_under_way: bool,
    /// The maximum size of the piece under way, or of the next one, in bytes.
    piece_bytes: usize,
    /// The maximum size of the pieces after that, in bytes.
    later_bytes: usize,
}

#[derive(Debug)]
struct OutgoingEpoch<T> {
    event: Event,
    digest: u64,
    /// Bytes that are stored.
    stored: usize,
    origin: Option<T>,
}

/// What a node has of epochs.
pub(super) struct NodeEpochs {
    pub(super) outbox: EpochOutbox<(u16, Ack)>,
    /// The channel of epochs, when the first one was sent.
    pub(super) channel: Option<ChannelKey>,
    pub(super) assembly: EpochAssembly,
    /// How long the log keeps an epoch, in seconds.
    pub(super) ttl_s: u64,
}

impl NodeEpochs {
    pub(super) fn new(ttl_s: u64) -> NodeEpochs {
        let (outbox, assembly) = (EpochOutbox::new(), EpochAssembly::default());
        NodeEpochs { outbox, channel: None, assembly, ttl_s }
    }

    /// Whether no epoch waits for the engine.
    pub(super) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The id of the entry that is to be sent for a channel, if that is the one of epochs.
    pub(super) fn id_on(&self, channel: &ChannelKey) -> Option<String> {
        (self.channel.as_ref() == Some(channel)).then(|| self.outbox.id())
    }

    /// Notes that the piece under way is stored. Returns who waits for the answer, if the epoch is
    /// whole.
    pub(super) fn stored(&mut self) -> Option<(u16, Ack)> {
        self.outbox.stored()
    }
}

/// The beginning of the digest of a document.
fn digest_of(document: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha256(&[document]);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl<T> OutgoingEpoch<T> {
    fn piece(&self, max_bytes: usize) -> Option<EpochPart<'_>> {
        let (number, document) = zilliqa::logged_epoch(&self.event)?;
        let rest = document.as_bytes().get(self.stored..)?;
        let piece = &rest[..rest.len().min(max_bytes)];
        let (bytes, offset) = (document.len() as u64, self.stored as u64);
        Some(EpochPart { number, digest: self.digest, bytes, offset, piece })
    }
}

impl<T> EpochOutbox<T> {
    pub(super) fn new() -> EpochOutbox<T> {
        let (piece_bytes, later_bytes) = (PIECE_BYTES, PIECE_BYTES);
        EpochOutbox { waiting: VecDeque::new(), is_under_way: false, piece_bytes, later_bytes }
    }

    /// Changes the maximum size of pieces, in bytes, at least 1. A piece that is under way stays as
    /// it is.
    pub(super) fn set_piece_bytes(&mut self, bytes: usize) {
        self.later_bytes = bytes;
        if !self.is_under_way {
            self.piece_bytes = bytes;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds an epoch.
    ///
    /// # Errors
    /// Too many wait; who waits for the answer is returned.
    pub(super) fn push(&mut self, event: Event, origin: Option<T>) -> Result<(), Option<T>> {
        let Some((_, document)) = zilliqa::logged_epoch(&event) else { return Err(origin) };
        if self.waiting.len() >= WAITING {
            return Err(origin);
        }
        let digest = digest_of(document.as_bytes());
        self.waiting.push_back(OutgoingEpoch { event, digest, stored: 0, origin });
        Ok(())
    }

    /// The part of the next piece, if none is under way. [`EpochOutbox::sent`] must follow when it
    /// is in the queue.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let first = self.waiting.front().filter(|_| !self.is_under_way)?;
        first.piece(self.piece_bytes).map(|piece| epoch_part(&piece))
    }

    /// Notes that the next piece is in the queue.
    pub(super) fn sent(&mut self) {
        self.is_under_way = true;
    }

    /// The id of the piece under way, by which the engine knows that it has it.
    pub(super) fn id(&self) -> String {
        let piece = self.waiting.front().and_then(|it| it.piece(self.piece_bytes));
        piece.map_or_else(String::new, |it| match (it.bytes, it.piece.len() as u64) {
            (0, _) => format!("begin-{}", it.number),
            (bytes, all) if bytes == all => format!("epoch-{}", it.number),
            _ => format!("epoch-{}-{:016x}-{}", it.number, it.digest, it.offset),
        })
    }

    /// Notes that the piece under way is stored. Returns who waits for the answer, if the epoch is
    /// whole.
    pub(super) fn stored(&mut self) -> Option<T> {
        self.is_under_way = false;
        let bytes = std::mem::replace(&mut self.piece_bytes, self.later_bytes);
        let first = self.waiting.front_mut()?;
        first.stored += first.piece(bytes).map_or(0, |piece| piece.piece.len());
        let is_whole = first.piece(bytes).is_none_or(|piece| piece.piece.is_empty());
        is_whole.then(|| self.waiting.pop_front()?.origin).flatten()
    }

    /// Notes that the piece under way is given up: none of the epochs is stored whole. Returns who
    /// waits for answers, and what they are.
    pub(super) fn failed(&mut self, why: Unpublished) -> Vec<(Option<T>, Unpublished)> {
        (self.is_under_way, self.piece_bytes) = (false, self.later_bytes);
        // Those after it have not been sent, and would wait as long, one after the other.
        let whys = std::iter::once(why).chain(std::iter::repeat(Unpublished::Refused));
        self.waiting.drain(..).map(|it| it.origin).zip(whys).collect()
    }
}

/// The documents of which the log has not had the last piece yet, the oldest first.
#[derive(Debug, Default)]
pub(super) struct EpochAssembly(VecDeque<PartialDocument>);

#[derive(Debug)]
struct PartialDocument {
    number: u64,
    digest: u64,
    bytes: u64,
    have: Vec<u8>,
}

/// A piece is not one of a document that this node accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAPiece;

impl EpochAssembly {
    /// Takes a piece, in the order of the log. Returns the document if it is whole; a document may
    /// have `max` bytes. A piece that has come already, or whose predecessor has not, is ignored.
    ///
    /// # Errors
    /// The document is larger, or is not what its digest says.
    pub(super) fn take(
        &mut self,
        part: &EpochPart<'_>,
        max: u64,
    ) -> Result<Option<Vec<u8>>, NotAPiece> {
        let &EpochPart { number, digest, bytes, offset, piece } = part;
        if bytes > max {
            return Err(NotAPiece);
        }
        let is_it =
            |it: &PartialDocument| (it.number, it.digest, it.bytes) == (number, digest, bytes);
        let found = self.0.iter().position(is_it);
        let at = match found {
            Some(at) => at,
            None if offset == 0 => {
                if self.0.len() >= PARTIAL {
                    self.0.pop_front();
                }
                self.0.push_back(PartialDocument { number, digest, bytes, have: Vec::new() });
                self.0.len() - 1
            }
            None => return Ok(None),
        };
        let Some(partial) = self.0.get_mut(at) else { return Ok(None) };
        if partial.have.len() as u64 != offset {
            return Ok(None);
        }
        partial.have.extend_from_slice(piece);
        if (partial.have.len() as u64) < bytes {
            return Ok(None);
        }
        let document = self.0.remove(at).map(|it| it.have).unwrap_or_default();
        if digest_of(&document) != digest {
            return Err(NotAPiece);
        }
        self.0.retain(|it| it.number > number);
        Ok(Some(document))
    }
}

#[cfg(feature = "zilliqa")]
#[cfg(test)]
mod tests;
