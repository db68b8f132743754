//! Decompression of messages: parts of them as they are received, and the work spread over turns.

use super::inbound::Recipient;
use super::websocket::WebSocket;
use crate::session::Context;
use crate::session::ending::Progress;
use crate::time::Deadline;
use crate::ws::{self, Unpacked, Violation};

impl WebSocket {
    /// Whether a whole message has been received whose decompression continues in a later turn.
    pub(super) fn is_unpacking(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_busy())
    }

    /// Whether such a message waits for the core's place for large messages, which is not free.
    pub(crate) fn awaits_place(&self, cx: &Context<'_>) -> bool {
        !cx.codecs.large.is_free()
            && self.channel.as_ref().is_some_and(|channel| channel.awaits_place())
    }

    /// Whether such a message has the core's place for large messages.
    pub(super) fn has_place(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.has_place())
    }

    /// Discards a message that is being decompressed, which frees the core's place for large
    /// messages.
    pub(crate) fn drop_unpacking(&mut self, cx: &mut Context<'_>) {
        if let Some(channel) = &mut self.channel
            && channel.is_busy()
        {
            channel.forget(cx.codecs);
        }
    }

    /// Continues the decompression of a message, or discards the message if `ignores` is set.
    pub(super) fn unpack_on(
        &mut self,
        limits: &ws::FrameLimits,
        ignores: bool,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        let Some(channel) = &mut self.channel else { return Progress::Again };
        if ignores {
            channel.forget(cx.codecs);
            return Progress::Again;
        }
        let unpacked = channel.continue_unpacking(limits.message_bytes, cx.codecs);
        self.unpacked(unpacked, out, deadline, cx)
    }

    /// Decompresses the part of an unfinished message that has been received.
    pub(super) fn unpack_part(
        &mut self,
        limits: &ws::FrameLimits,
        cx: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        let Some((kind, part)) = self.input.take_compressed() else { return Ok(()) };
        channel.unpack_part(kind, &part, limits.message_bytes, cx.codecs).map(drop)
    }

    /// Gives a decompressed message to the endpoint if it is complete.
    pub(super) fn unpacked(
        &mut self,
        unpacked: Result<Unpacked, Violation>,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        self.begun = 0;
        let (kind, mut message) = match unpacked {
            Ok(Unpacked::Whole(kind, message)) => (kind, message),
            Ok(Unpacked::Part | Unpacked::Busy) => return Progress::Again,
            Err(violation) => return self.violated(violation, out, cx),
        };
        if message.is_empty() && self.rate_limit.is_over(1, cx) {
            return self.is_over_limit(out, deadline, cx);
        }
        cx.counters.messages_received.add(1);
        let mut wanted = None;
        let (channel, policy) = (self.channel.as_deref_mut(), self.policy.as_deref_mut());
        let mut to = Recipient::new(&mut self.endpoint, channel, policy, &mut wanted);
        to.give(kind, &mut message, out, cx);
        cx.codecs.give_back(message);
        self.close_if(wanted, out, deadline, cx);
        Progress::Again
    }
}
