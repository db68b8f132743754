//! The bounded queue of commands from the control thread to a core, and its sending end.
//!
//! No command is dropped: while the queue is full, the control thread waits.

use super::{Inbox, Peers, ReactorCommand};
use crate::limits::COMMAND_QUEUE;
use crate::mem::mailbox::{Sender, mailbox};
use crate::uring::Waker;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The sending end of the command queue of one core.
pub struct CommandSender {
    queue: Sender<ReactorCommand>,
    core: u16,
    peers: Arc<Peers>,
    /// The ring that wakes the core; created on first use.
    waker: Option<Waker>,
}

/// Creates the command queue to `core`.
pub fn command_queue(peers: &Arc<Peers>, core: u16) -> (CommandSender, Inbox) {
    let (sender, receiver) = mailbox(COMMAND_QUEUE);
    let commands = CommandSender { queue: sender, core, peers: peers.clone(), waker: None };
    (commands, Inbox::new(receiver))
}

impl CommandSender {
    /// Appends a command, and wakes the core if it sleeps.
    ///
    /// # Errors
    /// The queue is full; the command is returned, to be tried again a little later.
    pub fn push(&mut self, order: ReactorCommand) -> Result<(), Box<ReactorCommand>> {
        self.queue.push(order).map_err(Box::new)?;
        let peer = self.peers.core(self.core);
        let ring = peer.ring.load(Ordering::Acquire);
        if ring >= 0 && peer.parking.needs_wake() {
            if self.waker.is_none() {
                self.waker = Waker::new().ok();
            }
            // A core that is not woken finds the command when its sleep ends, within a second.
            if let Some(waker) = &mut self.waker {
                let _ = waker.wake(ring);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Event;

    fn publish(n: u32) -> ReactorCommand {
        ReactorCommand::Publish { app: n, channel: "c".into(), event: Event::default() }
    }

    #[test]
    fn inbox_returns_a_command_when_full() {
        let peers = Arc::new(Peers::new(1));
        let (mut commands, mut inbox) = command_queue(&peers, 0);
        assert!(!inbox.is_waiting());
        for n in 0..COMMAND_QUEUE as u32 {
            assert!(commands.push(publish(n)).is_ok());
        }
        let back = commands.push(publish(99)).expect_err("it is full");
        assert!(matches!(*back, ReactorCommand::Publish { app: 99, .. }));
        assert!(inbox.is_waiting());
        let mut taken = Vec::new();
        while let Some(ReactorCommand::Publish { app, .. }) = inbox.pop() {
            taken.push(app);
        }
        assert_eq!(taken, (0..COMMAND_QUEUE as u32).collect::<Vec<_>>());
        assert!(commands.push(*back).is_ok());
    }
}
