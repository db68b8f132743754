//! The content of a part that is the idempotency key of an event of the same entry. A reader of a
//! release that does not know such parts publishes the event, but also its repetition.

use crate::hub::EventKey;

/// The idempotency key of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// The place of the event among the events of the entry, from 0.
    pub event: usize,
    /// The key.
    pub key: EventKey,
}

impl KeyPart {
    /// Writes the part.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        super::push_number(&mut out, self.event as u64);
        out.extend_from_slice(&self.key.key.to_le_bytes());
        out.extend_from_slice(&self.key.request.to_le_bytes());
        super::push_number(&mut out, self.key.index.into());
        out
    }

    /// Reads the part; `None` if it is malformed.
    pub(super) fn read(mut rest: &[u8]) -> Option<KeyPart> {
        let event = usize::try_from(super::take_number(&mut rest)?).ok()?;
        let mut digest = || Some(u128::from_le_bytes(super::take(&mut rest, 16)?.try_into().ok()?));
        let (key, request) = (digest()?, digest()?);
        let index = u16::try_from(super::take_number(&mut rest)?).ok()?;
        let key = EventKey { key, request, index };
        rest.is_empty().then_some(KeyPart { event, key })
    }

    /// Whether the keys are those of some of so many events, in their order.
    pub(super) fn are_of(keys: &[KeyPart], events: usize) -> bool {
        let is_ordered = keys.is_sorted_by(|one, next| one.event < next.event);
        is_ordered && keys.last().is_none_or(|last| last.event < events)
    }
}
