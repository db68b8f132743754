//! The deadlines of a WebSocket: heartbeats, token leases, unfinished messages, and the dialect's
//! own.

use super::heartbeat::{HeartbeatDue, full, spread};
use super::websocket::WebSocket;
use crate::dialect::{Closing, DialectEvent, Heartbeat, Why};
use crate::jwt::Expiry;
use crate::session::Context;
use crate::session::ending::{Ending, Progress};
use crate::time::Deadline;
use crate::ws::close;

const EXPIRED: Closing = Closing::new(close::POLICY, "the token has expired");
const LATE: Closing = Closing::new(close::POLICY, "the message took too long to arrive");

impl WebSocket {
    /// Handles a deadline that is due: sends the next heartbeat, or closes the connection.
    pub(super) fn on_deadline(
        &mut self,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        let now = cx.now;
        if !self.is_open() {
            // The peer did not send its close frame in time.
            cx.counters.timed_out.add(1);
            return Progress::End(Ending::Cut);
        }
        if self.input.mid_message() && self.message_deadline(cx).due(now) {
            return self.end_late(out, cx);
        }
        if self.expiry(cx) {
            self.close(&EXPIRED, out);
            *deadline = now.plus_ms(cx.env.config.timeouts.close_ms);
            return Progress::Again;
        }
        if self.endpoint.deadline().due(now) {
            let after = self.call_dialect(DialectEvent::Deadline, out, cx);
            if !self.is_open() {
                *deadline = now.plus_ms(cx.env.config.timeouts.close_ms);
                return after;
            }
        }
        let due = self.liveness.due(self.heartbeat_times(cx), self.records().is_none(), now);
        if let HeartbeatDue::Record(_) = due {
            self.push_heartbeat(out);
        }
        let until = match due {
            HeartbeatDue::Received(until) if self.input.mid_message() => {
                until.min(self.message_deadline(cx))
            }
            HeartbeatDue::Received(until) | HeartbeatDue::Asked(until) => until,
            HeartbeatDue::Record(until) => until,
            HeartbeatDue::Ping(until) => {
                self.send_ping(out, cx);
                until
            }
            HeartbeatDue::AppPing(until) => {
                self.call_dialect(DialectEvent::AppPing, out, cx);
                until
            }
            HeartbeatDue::Silent => {
                cx.counters.timed_out.add(1);
                return self.close_for(Why::Silent, out, cx);
            }
        };
        *deadline = until.min(self.own_deadline());
        Progress::Again
    }

    /// Closes the connection because a message did not arrive within `timeouts.message_ms`.
    fn end_late(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> Progress {
        cx.counters.timed_out.add(1);
        self.close(&LATE, out);
        Progress::End(Ending::Flush)
    }

    /// The heartbeat times of this connection, spread by its index.
    fn heartbeat_times(&self, cx: &Context<'_>) -> Heartbeat {
        spread(self.endpoint.heartbeat(cx.env), cx.conn.slot)
    }

    /// The first deadline: the first heartbeat, or the end of a close that the endpoint has begun,
    /// or an earlier deadline of the connection's own.
    pub(super) fn first_deadline(&self, cx: &Context<'_>) -> Deadline {
        let first_ms = match self.is_open() {
            true => self.heartbeat_times(cx).silence_ms,
            false => cx.env.config.timeouts.close_ms,
        };
        cx.now.plus_ms(first_ms).min(self.own_deadline())
    }

    /// The earlier of the dialect's own deadline and that of the token leases.
    pub(crate) fn own_deadline(&self) -> Deadline {
        self.lease_deadline().min(self.endpoint.deadline())
    }

    /// When a token expires or has to be challenged.
    pub(crate) fn lease_deadline(&self) -> Deadline {
        self.policy.as_ref().map_or(Deadline::NEVER, |policy| policy.deadline())
    }

    /// Whether a token has expired and was not replaced. Counts challenges that are due.
    pub(super) fn expiry(&mut self, cx: &Context<'_>) -> bool {
        if !self.has_expired(cx) {
            return false;
        }
        let leases = self.policy.as_mut().and_then(|policy| policy.leases.as_mut());
        match leases.map_or(Expiry::None, |leases| leases.look(cx.now)) {
            Expiry::None => return false,
            Expiry::Challenge => cx.counters.guard_challenges.add(1),
            Expiry::Expired => {
                cx.counters.guard_expired.add(1);
                return true;
            }
        }
        false
    }

    /// Whether the connection is open and a lease deadline is due.
    pub(crate) fn has_expired(&self, cx: &Context<'_>) -> bool {
        self.is_open() && self.lease_deadline().due(cx.now)
    }

    /// Sets the deadline of an unfinished message. Its timeout runs from its first byte, however
    /// its bytes are spread over time.
    pub(super) fn time_message(&mut self, deadline: &mut Deadline, cx: &Context<'_>) -> Progress {
        if !self.input.mid_message() {
            self.begun = 0;
        } else if self.begun == 0 {
            self.begun = (cx.now.ms as u32).max(1);
            *deadline = (*deadline).min(self.message_deadline(cx));
        }
        Progress::Need
    }

    pub(super) fn message_deadline(&self, cx: &Context<'_>) -> Deadline {
        Deadline(full(self.begun, cx.now) + cx.env.config.timeouts.message_ms)
    }
}
