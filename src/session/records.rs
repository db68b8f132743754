//! Tickets: the numbers by which acknowledgements and answers find the HTTP request that waits for
//! them.

use super::{Session, Stage};

impl Session {
    /// The ticket of the newest HTTP request that is not answered yet; its publishes are
    /// acknowledged under it.
    pub fn ticket(&self) -> Option<u32> {
        match &self.stage {
            Stage::Http(requests) => requests.ticket(),
            _ => None,
        }
    }

    /// The ticket under which a publish is acknowledged. For a WebSocket it is 0, and only
    /// publishes with a `part` above 0 are acknowledged.
    pub fn ticket_of_publish(&self, part: u16) -> Option<u32> {
        match &self.stage {
            Stage::Http(requests) => requests.ticket(),
            Stage::Socket(_) => (part > 0).then_some(0),
            _ => None,
        }
    }

    /// Makes the reply to request `ticket` wait for one more acknowledgement.
    pub fn await_ack(&mut self, ticket: u32) {
        if let Stage::Http(requests) = &mut self.stage {
            requests.await_ack(ticket);
        }
    }

    /// Takes one acknowledgement for request `ticket`.
    pub fn acked(&mut self, ticket: u32) {
        if let Stage::Http(requests) = &mut self.stage {
            requests.acked(ticket);
        }
    }

    /// Whether the reply to request `ticket` is made from answers of channels' homes.
    pub fn collects_answers(&self, ticket: u32) -> bool {
        match &self.stage {
            Stage::Http(requests) => requests.collects_answers(ticket),
            Stage::Socket(_) => true,
            _ => false,
        }
    }
}
