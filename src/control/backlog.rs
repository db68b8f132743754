//! The backlog of commands to the reactors: commands wait here while the command queue is full, and
//! the control thread creates no more meanwhile.

use crate::reactor::{CommandSender, ReactorCommand};
use std::collections::VecDeque;

/// How long after a push into a full queue the next attempt is made, in milliseconds.
const RETRY_MS: u64 = 1;

/// The command queue to the reactors, and the commands that wait for room in it.
pub(super) struct Backlog {
    command_queue: CommandSender,
    waiting: VecDeque<ReactorCommand>,
}

impl Backlog {
    pub(super) fn new(command_queue: CommandSender) -> Backlog {
        Backlog { command_queue, waiting: VecDeque::new() }
    }

    /// Whether a new command may be created: no command waits.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends a command after those that wait already.
    pub(super) fn put(&mut self, order: ReactorCommand) {
        self.waiting.push_back(order);
        self.hand_over();
    }

    /// Moves waiting commands into the queue until it is full.
    pub(super) fn hand_over(&mut self) {
        while let Some(order) = self.waiting.pop_front() {
            if let Err(back) = self.command_queue.push(order) {
                return self.waiting.push_front(*back);
            }
        }
    }

    /// When to call [`Backlog::hand_over`] again, in milliseconds; `u64::MAX` if no command waits.
    pub(super) fn deadline_ms(&self, now_ms: u64) -> u64 {
        if self.has_room() { u64::MAX } else { now_ms + RETRY_MS }
    }

    /// Drops the waiting commands, because no core takes commands out of the queue any more.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Event;
    use crate::limits::COMMAND_QUEUE;
    use crate::reactor::{Peers, command_queue};
    use std::sync::Arc;

    #[test]
    fn backlog_keeps_order_while_the_queue_is_full() {
        let (commands, mut inbox) = command_queue(&Arc::new(Peers::new(1)), 0);
        let mut backlog = Backlog::new(commands);
        let publish =
            |app| ReactorCommand::Publish { app, channel: "c".into(), event: Event::default() };
        let max = COMMAND_QUEUE as u32;
        (0..max).for_each(|n| backlog.put(publish(n)));
        assert!(backlog.has_room());
        backlog.put(publish(max));
        assert!(!backlog.has_room());
        backlog.put(publish(max + 1));
        let mut taken = Vec::new();
        while let Some(ReactorCommand::Publish { app, .. }) = inbox.pop() {
            taken.push(app);
            backlog.hand_over();
        }
        assert!(backlog.has_room());
        assert_eq!(taken, (0..max + 2).collect::<Vec<_>>());
    }
}
