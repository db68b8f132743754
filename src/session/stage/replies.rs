//! The replies to the requests of one connection, in the order of the requests. A reply waits for
//! earlier ones and for what other cores acknowledge and answer.

use super::respond::{ResponseOptions, push, send};
use crate::dialect::{Finish, SharedWith};
use crate::http::{Connection, Response};
use crate::hub::{Answer, Unpublished};
use crate::limits::HTTP_PIPELINE;
use crate::session::Context;
use std::collections::VecDeque;
use std::sync::Arc;

/// The replies that were not sent yet, the oldest first.
#[derive(Default)]
pub(super) struct Replies {
    waiting: VecDeque<PendingReply>,
    /// The ticket of the oldest reply: the number of replies that were sent.
    first: u32,
}

/// One reply that was not sent yet.
pub(super) struct PendingReply {
    acks: u32,
    body: Body,
    /// The channels on which the request has not published, in a cluster, and why.
    unpublished: Vec<(Arc<str>, Unpublished)>,
    /// Whether the connection ends after this reply.
    last: bool,
    /// Whether no further request is read until this reply is complete, because its answers may be
    /// large.
    gathers: bool,
}

enum Body {
    /// The whole response.
    Bytes(Vec<u8>),
    /// Made from answers, when all of them have arrived.
    Later(Box<Unfinished>),
}

/// A response that is made from answers.
pub(super) struct Unfinished {
    finish: Finish,
    answers: Vec<(u16, Answer)>,
    connection: Connection,
    head_only: bool,
    shared_with: Option<SharedWith>,
}

impl Unfinished {
    /// A response without answers so far.
    pub(super) fn new(
        finish: Finish,
        connection: Connection,
        head_only: bool,
        shared_with: Option<SharedWith>,
    ) -> Unfinished {
        Unfinished { finish, answers: Vec::new(), connection, head_only, shared_with }
    }
}

impl PendingReply {
    /// A whole response.
    pub(super) fn bytes(bytes: Vec<u8>, last: bool) -> PendingReply {
        PendingReply {
            acks: 0,
            body: Body::Bytes(bytes),
            unpublished: Vec::new(),
            last,
            gathers: false,
        }
    }

    /// A response that is made from answers.
    pub(super) fn later(unfinished: Unfinished, last: bool, gathers: bool) -> PendingReply {
        let body = Body::Later(Box::new(unfinished));
        PendingReply { acks: 0, body, unpublished: Vec::new(), last, gathers }
    }

    /// The error response to a WebSocket handshake or a stream that was pipelined after requests
    /// without responses.
    pub(super) fn too_early(cx: &Context<'_>) -> PendingReply {
        cx.counters.http_errors.add(1);
        let mut bytes = Vec::new();
        let text = "earlier requests are not answered yet\n";
        Response::text(400, text).connection(Connection::Close).push(&mut bytes);
        PendingReply::bytes(bytes, true)
    }
}

impl PendingReply {
    /// Writes the response to a request that has not published everything: 504 if that is not known
    /// of some channel, else 503, after which the client may repeat it. If the idempotency key
    /// belongs to another request, the dialect says so.
    fn push_unpublished(mut self, out: &mut Vec<u8>, cx: &Context<'_>) {
        let why = self.unpublished.iter().map(|(_, why)| *why).max();
        if let Body::Later(it) = std::mem::replace(&mut self.body, Body::Bytes(Vec::new())) {
            let answers = self.unpublished.iter().cloned();
            let answer = |(channel, why)| (0, Answer::Unpublished(channel, why));
            let reply = (it.finish)(answers.map(answer).collect());
            if why == Some(Unpublished::KeyUsed) {
                let manner = ResponseOptions { connection: it.connection, head_only: it.head_only };
                return push(&reply, manner, it.shared_with.as_ref(), out, cx);
            }
        }
        let names: Vec<&str> = self.unpublished.iter().map(|(channel, _)| &**channel).collect();
        let is_unknown = why == Some(Unpublished::Unknown);
        let (status, text) = match is_unknown {
            true => (504, "it is not known whether the events of some channels were published"),
            false => (503, "the events of some channels were not published; try again"),
        };
        let body = serde_json::json!({ "error": text, "code": status, "channels": names });
        let body = body.to_string().into_bytes();
        let fields: &[(&str, &str)] = if is_unknown { &[] } else { &[("Retry-After", "1")] };
        let connection = if self.last { Connection::Close } else { Connection::KeepAlive };
        let response = Response::json(status, &body).headers(fields).connection(connection);
        send(status, &response, out, cx);
    }
}

impl Replies {
    /// Adds the reply to the newest request.
    pub(super) fn push(&mut self, reply: PendingReply) {
        self.waiting.push_back(reply);
    }

    /// Whether no reply waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no reply was sent yet.
    pub(super) fn none_was_sent(&self) -> bool {
        self.first == 0
    }

    /// Whether the connection ends after the newest reply.
    pub(super) fn end_the_connection(&self) -> bool {
        self.waiting.back().is_some_and(|reply| reply.last)
    }

    /// Whether no further request is read for now: `HTTP_PIPELINE` replies wait, or one whose
    /// answers may be large.
    pub(super) fn is_full(&self) -> bool {
        let gathers = self.waiting.back().is_some_and(|reply| reply.gathers);
        gathers || self.waiting.len() >= HTTP_PIPELINE
    }

    /// Heap bytes of the replies.
    pub(super) fn held_bytes(&self) -> usize {
        let bytes = |it: &PendingReply| match &it.body {
            Body::Bytes(bytes) => bytes.capacity(),
            Body::Later(_) => size_of::<Unfinished>(),
        };
        self.waiting.iter().map(bytes).sum()
    }

    /// The ticket of the newest reply.
    pub(super) fn ticket(&self) -> Option<u32> {
        let waiting = self.waiting.len() as u32;
        (waiting > 0).then(|| self.first.wrapping_add(waiting - 1))
    }

    fn reply(&mut self, ticket: u32) -> Option<&mut PendingReply> {
        self.waiting.get_mut(ticket.wrapping_sub(self.first) as usize)
    }

    /// Makes the reply with this ticket wait for `count` more acknowledgements.
    pub(super) fn await_acks(&mut self, ticket: u32, count: u32) {
        if let Some(reply) = self.reply(ticket) {
            reply.acks += count;
        }
    }

    /// Takes one acknowledgement for the reply with this ticket.
    pub(super) fn acked(&mut self, ticket: u32) {
        if let Some(reply) = self.reply(ticket) {
            reply.acks = reply.acks.saturating_sub(1);
        }
    }

    /// Takes one answer for part `part` of the request with this ticket.
    pub(super) fn answered(&mut self, ticket: u32, part: u16, answer: Answer) {
        match (self.reply(ticket), answer) {
            (Some(reply), Answer::Unpublished(channel, why)) => {
                reply.unpublished.push((channel, why));
            }
            (Some(PendingReply { body: Body::Later(unfinished), .. }), answer) => {
                unfinished.answers.push((part, answer));
            }
            _ => {}
        }
    }

    /// Whether the reply with this ticket is made from answers of channels' homes.
    pub(super) fn collects_answers(&self, ticket: u32) -> bool {
        let at = ticket.wrapping_sub(self.first) as usize;
        matches!(self.waiting.get(at), Some(PendingReply { body: Body::Later(_), .. }))
    }

    /// Whether the oldest reply is complete.
    pub(super) fn has_ready(&self) -> bool {
        self.waiting.front().is_some_and(|reply| reply.acks == 0)
    }

    /// Moves the replies that are complete into `out`. Returns true if the connection ends after
    /// them.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> bool {
        while self.has_ready()
            && let Some(reply) = self.waiting.pop_front()
        {
            self.first = self.first.wrapping_add(1);
            let last = reply.last;
            match reply.body {
                _ if !reply.unpublished.is_empty() => reply.push_unpublished(out, cx),
                Body::Bytes(bytes) => out.extend_from_slice(&bytes),
                Body::Later(it) => {
                    let reply = (it.finish)(it.answers);
                    let manner =
                        ResponseOptions { connection: it.connection, head_only: it.head_only };
                    push(&reply, manner, it.shared_with.as_ref(), out, cx);
                }
            }
            if last {
                return true;
            }
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 4 {
            self.waiting = VecDeque::new();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending_reply(gathers: bool) -> PendingReply {
        PendingReply { gathers, ..PendingReply::bytes(Vec::new(), false) }
    }

    #[test]
    fn replies_are_full_with_a_pipeline_or_with_one_reply_that_gathers() {
        let mut replies = Replies::default();
        (1..HTTP_PIPELINE).for_each(|_| replies.push(pending_reply(false)));
        assert!(!replies.is_full());
        replies.push(pending_reply(false));
        assert!(replies.is_full());
        let mut replies = Replies::default();
        replies.push(pending_reply(false));
        assert!(!replies.is_full());
        replies.push(pending_reply(true));
        assert!(replies.is_full());
    }

    #[test]
    fn replies_wait_for_as_many_acknowledgements_as_are_awaited() {
        let mut replies = Replies::default();
        assert_eq!((replies.ticket(), replies.has_ready()), (None, false));
        (0..2).for_each(|_| replies.push(pending_reply(false)));
        assert_eq!(replies.ticket(), Some(1));
        replies.await_acks(0, 2);
        replies.acked(0);
        assert!(!replies.has_ready(), "one of two");
        replies.acked(1);
        assert!(!replies.has_ready(), "that was for the other reply");
        replies.acked(0);
        assert!(replies.has_ready());
        // Late or wrong acknowledgements change nothing.
        (0..3).for_each(|ticket| replies.acked(ticket));
        assert!(replies.has_ready() && !replies.collects_answers(0));
    }
}
