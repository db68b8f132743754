//! The receiving end of the queue of commands from the control thread to a core.
//!
//! A core takes commands only while it takes requests of other cores and has room for the mail that
//! commands cause.

use super::Reactor;
use crate::dialect::{DialectMessage, Event};
use crate::driver::Driver;
use crate::hub::ConnId;
use crate::limits::COMMAND_QUEUE;
use crate::mem::mailbox::Receiver;
use crate::time::Now;
use std::sync::Arc;

/// A command to a core from the control thread.
pub enum ReactorCommand {
    /// Publish an event, ordered by the channel's home.
    Publish {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Event,
    },
    /// Deliver a message to the dialect of a connection, on any core.
    Message {
        /// The connection.
        to: ConnId,
        /// The message.
        what: DialectMessage,
    },
}

/// The receiving end of the command queue of one core.
pub struct Inbox {
    queue: Receiver<ReactorCommand>,
}

impl Inbox {
    /// The inbox that receives from `queue`.
    pub(super) fn new(queue: Receiver<ReactorCommand>) -> Inbox {
        Inbox { queue }
    }

    /// Removes the oldest command.
    pub fn pop(&mut self) -> Option<ReactorCommand> {
        self.queue.pop()
    }

    /// Whether commands are waiting.
    pub(super) fn is_waiting(&mut self) -> bool {
        !self.queue.is_empty()
    }
}

impl<D: Driver> Reactor<D> {
    /// Executes commands of the control thread, while there is room for the mail that they cause.
    pub(super) fn take_commands(&mut self, now: Now) {
        let Some(inbox) = &mut self.inbox else { return };
        for _ in 0..COMMAND_QUEUE {
            if !self.shard.takes_commands() {
                return;
            }
            match inbox.pop() {
                Some(ReactorCommand::Publish { app, channel, mut event }) => {
                    self.shard.publish_command(app, &channel, &mut event, now);
                }
                Some(ReactorCommand::Message { to, what }) => {
                    self.shard.deliver_anywhere(to, what, now)
                }
                None => return,
            }
        }
    }
}
