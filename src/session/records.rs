//! Numbers under which others acknowledge what a session has asked for.

use super::{Session, Stage};

impl Session {
    /// The number of the HTTP request in hand, for the acknowledgement of its publishes.
    pub fn ticket(&self) -> Option<u32> {
        match &self.stage {
            Stage::Http(requests) => requests.ticket(),
            _ => None,
        }
    }

    /// Under which number a publish is acknowledged; to a WebSocket, if its part is not 0.
    pub fn ticket_of_publish(&self, part: u16) -> Option<u32> {
        match &self.stage {
            Stage::Http(requests) => requests.ticket(),
            Stage::Socket(_) => (part > 0).then_some(0),
            _ => None,
        }
    }

    /// The reply to request `ticket` has to wait for one more acknowledgement.
    pub fn await_ack(&mut self, ticket: u32) {
        if let Stage::Http(requests) = &mut self.stage {
            requests.await_ack(ticket);
        }
    }

    /// One acknowledgement for request `ticket` has come.
    pub fn acked(&mut self, ticket: u32) {
        if let Stage::Http(requests) = &mut self.stage {
            requests.acked(ticket);
        }
    }

    /// Whether the reply to request `ticket` is made of answers.
    pub fn collects_answers(&self, ticket: u32) -> bool {
        match &self.stage {
            Stage::Http(requests) => requests.collects_answers(ticket),
            Stage::Socket(_) => true,
            _ => false,
        }
    }
}
