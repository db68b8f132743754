//! The bounded queue of commands from the control thread to a core, and its sending end.
//!
//! No command is dropped: while the queue is full, the control thread waits.

use super::{Inbox, Peers, ReactorCommand};
use crate::limits::COMMAND_QUEUE;
use crate::mem::mailbox::{Sender, mailbox};
use crate::{driver::WakeHandle, uring};
use std::io;
use std::sync::Arc;

/// The sending end of the command queue of one core.
pub struct CommandSender {
    queue: Sender<ReactorCommand>,
    core: u16,
    peers: Arc<Peers>,
    waker: Waker,
}

/// Creates the command queue to `core`.
pub fn command_queue(peers: &Arc<Peers>, core: u16) -> (CommandSender, Inbox) {
    let (sender, receiver) = mailbox(COMMAND_QUEUE);
    let commands =
        CommandSender { queue: sender, core, peers: peers.clone(), waker: Waker::default() };
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
        if let Some(handle) = peer.wake.get()
            && peer.parking.needs_wake()
        {
            // A core that is not woken finds the command when its sleep ends, within a second.
            let _ = self.waker.wake(handle);
        }
        Ok(())
    }
}

/// Wakes reactors from threads without a driver: signals and the control thread.
#[derive(Default)]
pub struct Waker {
    /// The ring that sends messages to other rings; created on first use.
    ring: Option<uring::RingWaker>,
}

impl Waker {
    /// Wakes the reactor of `handle`.
    ///
    /// # Errors
    /// A system call fails; the reactor then wakes by itself within a second.
    pub fn wake(&mut self, handle: &WakeHandle) -> io::Result<()> {
        match (handle, &mut self.ring) {
            (WakeHandle::Event(event), _) => WakeHandle::notify(event),
            (WakeHandle::Ring(descriptor), Some(ring)) => ring.wake(*descriptor),
            (WakeHandle::Ring(descriptor), none) => {
                none.insert(uring::RingWaker::new()?).wake(*descriptor)
            }
        }
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
