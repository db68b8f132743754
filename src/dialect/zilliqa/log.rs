//! Epochs in the log of a cluster. All nodes read the same log, and each takes an epoch only if its
//! number is above that of the last one. So the clients of all nodes get the same epochs, each once
//! and in ascending order, however many nodes fetch them.

use super::Shared;
use super::epoch::{Epoch, Strictness};
use super::messages::ZilliqaMessage;
use crate::dialect::{DialectMessage, Event, EventPayload};
use std::sync::Arc;

/// What has become of an epoch of the log.
#[derive(Debug)]
pub enum LoggedEpoch {
    /// The clients get it.
    Published(Event),
    /// It is the one after which epochs are fetched; clients do not get it.
    Begun,
    /// It or a later one was published before.
    Late,
    /// It cannot be read.
    Invalid,
}

/// The number and the document of the epoch that an event is, for the log of a cluster. The
/// document is empty if epochs are fetched after this one. `None` for other events.
pub fn logged_epoch(event: &Event) -> Option<(u64, &str)> {
    let EventPayload::Message(DialectMessage::Zilliqa(message)) = &event.payload else {
        return None;
    };
    match message {
        ZilliqaMessage::Epoch(epoch) => Some((epoch.number(), epoch.text())),
        ZilliqaMessage::Begin(number) => Some((*number, "")),
        ZilliqaMessage::Contracts(_) => None,
    }
}

/// Takes an epoch of the log of a cluster, as [`logged_epoch`] has given it.
pub fn epoch_from_log(shared: &Shared, number: u64, document: Vec<u8>) -> LoggedEpoch {
    if shared.last().is_some_and(|last| last >= number) {
        return LoggedEpoch::Late;
    }
    if document.is_empty() {
        shared.note(number, None);
        return LoggedEpoch::Begun;
    }
    // Who has written it has refused or left out what cannot be read.
    let text = String::from_utf8(document).ok();
    let epoch = text.and_then(|text| Epoch::read(text, Strictness::Skip).ok());
    let Some(epoch) = epoch.filter(|epoch| epoch.number() == number).map(Arc::new) else {
        return LoggedEpoch::Invalid;
    };
    shared.note(number, Some(&epoch));
    LoggedEpoch::Published(Event::message(ZilliqaMessage::Epoch(epoch).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(number: u64) -> Vec<u8> {
        format!(r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}}}},"TxHashes":[]}}"#)
            .into_bytes()
    }

    #[test]
    fn zilliqa_epochs_of_the_log_are_taken_once_and_in_order() {
        let shared = Shared::default();
        shared.set_history(9, 1 << 20);
        let take = |number, document| match epoch_from_log(&shared, number, document) {
            LoggedEpoch::Published(event) => {
                let (found, text) = logged_epoch(&event).expect("an epoch");
                assert_eq!((found, text.as_bytes()), (number, &*self::document(number)));
                "published"
            }
            LoggedEpoch::Begun => "begun",
            LoggedEpoch::Late => "late",
            LoggedEpoch::Invalid => "invalid",
        };
        assert_eq!(take(5, Vec::new()), "begun");
        assert_eq!((take(5, document(5)), take(4, document(4))), ("late", "late"));
        assert_eq!((take(6, document(6)), take(6, document(6))), ("published", "late"));
        for wrong in [b"\xff".to_vec(), b"{}".to_vec(), document(8)] {
            assert_eq!(take(7, wrong), "invalid");
        }
        assert_eq!(shared.last(), Some(6), "what is invalid leaves no trace");
        assert_eq!(take(7, document(7)), "published");
        assert_eq!(take(6, Vec::new()), "late");
        let kept = shared.epochs_after(5, false).expect("nothing is missing");
        assert_eq!(kept.iter().map(|epoch| epoch.number()).collect::<Vec<_>>(), [6, 7]);
    }
}
