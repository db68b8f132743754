//! The order between the mailboxes of a core and another queue to it.

use crate::mem::mailbox::Receiver;

/// The requests of other cores that come before the messages of a queue: those that were in their
/// mailboxes when the messages were seen. Such a message may be an event that another core has
/// published after its request.
#[derive(Default)]
pub(super) struct RequestsBefore {
    /// The number of messages of the queue that were seen.
    messages: usize,
    /// How many requests each core had sent then; empty when all of them are taken.
    pub(super) requests: Vec<usize>,
}

impl RequestsBefore {
    /// Sees what is in the queue, if everything that was seen before has been removed. Returns
    /// whether there is something; then the requests are to be noted.
    pub(super) fn see<T>(&mut self, queue: &mut Receiver<T>) -> bool {
        if queue.removed() != self.messages || queue.is_empty() {
            return false;
        }
        self.messages = queue.sent();
        self.requests.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::mailbox::mailbox;

    #[test]
    fn requests_are_noted_once_for_the_messages_that_are_seen_together() {
        let (mut tx, mut rx) = mailbox(8);
        let mut before = RequestsBefore::default();
        assert!(!before.see(&mut rx), "the queue is empty");
        assert_eq!((tx.push(1), tx.push(2)), (Ok(()), Ok(())));
        assert!(before.see(&mut rx));
        before.requests.push(7);
        assert_eq!(tx.push(3), Ok(()));
        for _ in 0..2 {
            assert!(!before.see(&mut rx), "one that was seen is there");
            assert!(rx.pop().is_some());
        }
        assert_eq!(before.requests, [7]);
        assert!(before.see(&mut rx), "the third was not seen");
        assert!(before.requests.is_empty());
    }
}
