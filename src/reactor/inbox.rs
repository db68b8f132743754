//! The way back from the control thread to a core: one bounded lane of orders.
//!
//! Nothing in it is dropped: where the lane is full, the control thread waits. A core takes orders
//! only while it takes requests and has room for those that it causes, as with its connections.

use super::{Peers, Reactor};
use crate::hub::{ConnId, DialectMessage, Event};
use crate::limits::ORDER_LANE;
use crate::mem::mailbox::{Receiver, Sender, mailbox};
use crate::time::Now;
use crate::uring::Waker;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a core is asked to do from outside the reactors.
pub enum ReactorCommand {
    /// To publish an event, in the order of the channel's home.
    Publish {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Event,
    },
    /// To give this to the dialect of a connection, on whichever core.
    Tell {
        /// The connection.
        to: ConnId,
        /// What it is told.
        what: DialectMessage,
    },
}

/// The sending end of one core's lane.
pub struct CommandSender {
    lane: Sender<ReactorCommand>,
    core: u16,
    peers: Arc<Peers>,
    /// Made when it is first needed.
    waker: Option<Waker>,
}

/// The receiving end.
pub struct Inbox {
    lane: Receiver<ReactorCommand>,
}

/// A lane to `core`.
pub fn orders(peers: &Arc<Peers>, core: u16) -> (CommandSender, Inbox) {
    let (sender, receiver) = mailbox(ORDER_LANE);
    let orders = CommandSender { lane: sender, core, peers: peers.clone(), waker: None };
    (orders, Inbox { lane: receiver })
}

impl CommandSender {
    /// Puts an order in and wakes the core if it sleeps; gives the order back when the lane is
    /// full: try again a little later.
    ///
    /// # Errors
    /// The order, when there is no room for it.
    pub fn push(&mut self, order: ReactorCommand) -> Result<(), Box<ReactorCommand>> {
        self.lane.push(order).map_err(Box::new)?;
        let peer = self.peers.core(self.core);
        let ring = peer.ring.load(Ordering::Acquire);
        if ring >= 0 && peer.parking.needs_wake() {
            if self.waker.is_none() {
                self.waker = Waker::new().ok();
            }
            // A core that is not woken finds the order when its sleep ends, within a second.
            if let Some(waker) = &mut self.waker {
                let _ = waker.wake(ring);
            }
        }
        Ok(())
    }
}

impl Inbox {
    /// Takes the oldest order out.
    pub fn pop(&mut self) -> Option<ReactorCommand> {
        self.lane.pop()
    }

    /// Whether orders wait.
    pub(super) fn is_waiting(&mut self) -> bool {
        !self.lane.is_empty()
    }
}

impl Reactor {
    /// Takes what the control thread has ordered, as far as what that causes has room.
    pub(super) fn take_orders(&mut self, now: Now) {
        let Some(inbox) = &mut self.inbox else { return };
        for _ in 0..ORDER_LANE {
            if !self.shard.takes_orders() {
                return;
            }
            match inbox.pop() {
                Some(ReactorCommand::Publish { app, channel, event }) => {
                    self.shard.publish_order(app, &channel, &event, now);
                }
                Some(ReactorCommand::Tell { to, what }) => {
                    self.shard.deliver_anywhere(to, what, now)
                }
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(n: u32) -> ReactorCommand {
        ReactorCommand::Publish { app: n, channel: "c".into(), event: Event::default() }
    }

    #[test]
    fn inbox_returns_a_command_when_full() {
        let peers = Arc::new(Peers::new(1));
        let (mut orders, mut inbox) = orders(&peers, 0);
        assert!(!inbox.is_waiting());
        for n in 0..ORDER_LANE as u32 {
            assert!(orders.push(publish(n)).is_ok());
        }
        let back = orders.push(publish(99)).expect_err("it is full");
        assert!(matches!(*back, ReactorCommand::Publish { app: 99, .. }));
        assert!(inbox.is_waiting());
        let mut taken = Vec::new();
        while let Some(ReactorCommand::Publish { app, .. }) = inbox.pop() {
            taken.push(app);
        }
        assert_eq!(taken, (0..ORDER_LANE as u32).collect::<Vec<_>>());
        assert!(orders.push(*back).is_ok());
    }
}
