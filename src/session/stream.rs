//! HTTP streams: a request with a streamed body that takes the place of a WebSocket. The records of
//! the request body are the client's messages; messages to the client are records of the response
//! body, which is sent at the same time.
//!
//! Only the framing differs from a WebSocket. [`Input`] reports records as the events of a
//! WebSocket, and the output writes messages in the stream's framing. Endpoints, models, token
//! leases, queues and deadlines are those of a WebSocket. To the upstream of a proxy route it is a
//! WebSocket.

use super::open::enter;
use super::request::refuse;
use super::socket::{ConnectionPolicy, Socket};
use super::upstream::{PendingUpstream, UpstreamRequest};
use super::{Context, Ending, StageResult};
use crate::config;
use crate::dialect::Opening;
use crate::gateway::{RouteMatch, RouteRefusal};
use crate::http::{self, Body, Request, push_field, push_status};
use crate::ws::output::Channel;
use crate::ws::record::{self, RecordEvent, RecordFraming};
use crate::ws::{self, FrameEvent, MessageKind, Role, Violation};

/// The reader of what the client sends.
pub(super) enum Input {
    /// Reads the frames of a WebSocket.
    Frames(ws::Reader),
    /// Reads the records of a request body.
    Records(Box<Records>),
}

/// A reader of the records of a request body.
pub(super) struct Records {
    body: Body,
    reader: record::Reader,
    /// The maximum number of framing bytes of a chunk, beside its data.
    max_overhead: usize,
    /// Whether the client still receives messages after its request body has ended.
    half_open: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Body,
    /// The body has ended; the last record or the end is still to be reported.
    Ending,
    /// Nothing more is read.
    Over,
}

impl Input {
    /// The reader of a WebSocket that was just opened.
    pub(super) const FRAMES: Input = Input::Frames(ws::Reader::new());

    pub(super) fn next<'a>(
        &'a mut self,
        role: Role,
        limits: &ws::FrameLimits,
        input: &'a mut [u8],
    ) -> (usize, FrameEvent<'a>) {
        match self {
            Input::Frames(reader) => reader.next(role, limits, input),
            Input::Records(records) => records.next(limits, input),
        }
    }

    /// Takes the part of an unfinished compressed message that has been received.
    pub(super) fn take_compressed(&mut self) -> Option<(MessageKind, Vec<u8>)> {
        match self {
            Input::Frames(reader) => reader.take_compressed(),
            Input::Records(_) => None,
        }
    }

    /// Takes the number of empty frames since the last call, except for those that are whole
    /// messages.
    pub(super) fn take_empty_frames(&mut self) -> u16 {
        match self {
            Input::Frames(reader) => reader.take_empty_frames(),
            Input::Records(_) => 0,
        }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn mid_message(&self) -> bool {
        match self {
            Input::Frames(reader) => reader.mid_message(),
            Input::Records(records) => records.stage != Stage::Over && records.reader.mid_record(),
        }
    }

    /// Whether a further step without input would find nothing to do.
    pub(super) fn keeps_nothing(&self) -> bool {
        match self {
            Input::Frames(reader) => reader.held_bytes() == 0,
            Input::Records(records) => records.keeps_nothing(),
        }
    }

    /// Heap bytes of an unfinished message.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Input::Frames(reader) => reader.filled_bytes(),
            Input::Records(records) => records.reader.held_bytes(),
        }
    }

    /// Frees a long message that was handed out, so that it holds no memory while its results wait.
    pub(super) fn take_back(&mut self) {
        match self {
            Input::Frames(reader) => reader.take_back_long(),
            Input::Records(_) => {}
        }
    }

    /// Frees all memory: nothing more is read.
    pub(super) fn discard(&mut self) {
        match self {
            Input::Frames(reader) => *reader = ws::Reader::new(),
            Input::Records(records) => records.reader.discard(),
        }
    }

    /// Whether the client's request body has ended and was handled, so that the client only
    /// receives from now on.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Input::Records(records) if records.stage == Stage::Over)
    }
}

impl Records {
    pub(super) fn new(
        framing: RecordFraming,
        body: Body,
        max_overhead: usize,
        half_open: bool,
    ) -> Records {
        let reader = record::Reader::new(framing);
        Records { body, reader, max_overhead, half_open, stage: Stage::Body }
    }

    fn keeps_nothing(&self) -> bool {
        let has_ended = match self.stage {
            Stage::Body => !self.body.has_ended(),
            Stage::Ending => false,
            Stage::Over => true,
        };
        has_ended && self.reader.held_bytes() == 0
    }

    fn next<'a>(
        &'a mut self,
        limits: &ws::FrameLimits,
        input: &'a mut [u8],
    ) -> (usize, FrameEvent<'a>) {
        let was_over = self.stage == Stage::Over;
        let (taken, start, found) = self.advance(limits, input);
        let event = match found {
            RecordEvent::Need if !was_over && !self.half_open && self.stage == Stage::Over => {
                FrameEvent::Close { code: None, reason: "" }
            }
            RecordEvent::Need => FrameEvent::Need,
            RecordEvent::Alive => FrameEvent::Pong(&[]),
            RecordEvent::Violation(violation) => {
                self.stage = Stage::Over;
                return (input.len(), FrameEvent::Violation(violation));
            }
            RecordEvent::Message(kind, place) => {
                let payload = self.reader.payload(place, &mut input[start..]);
                FrameEvent::Message { kind, compressed: false, payload }
            }
        };
        (taken, event)
    }

    /// Reads `input` up to the first event. Returns the number of bytes that were consumed, the
    /// offset of the data in which the event was found, and the event.
    fn advance(&mut self, limits: &ws::FrameLimits, input: &[u8]) -> (usize, usize, RecordEvent) {
        let mut at = 0;
        loop {
            match self.stage {
                Stage::Over => return (input.len(), at, RecordEvent::Need),
                Stage::Ending => match self.reader.end(limits) {
                    RecordEvent::Need => {
                        self.stage = Stage::Over;
                        continue;
                    }
                    found => return (at, at, found),
                },
                Stage::Body => {}
            }
            let Ok(chunk) = self.body.look(self.max_overhead, &input[at..]) else {
                return (input.len(), at, RecordEvent::Violation(Violation::Chunk));
            };
            let (from, to) = (at + chunk.from, at + chunk.to);
            // Called even without data: the reader takes back the payload that it has lent.
            let (taken, found) = self.reader.next(limits, &input[from..to]);
            self.body.took(taken);
            at = from + taken;
            if found != RecordEvent::Need {
                return (at, from, found);
            }
            if self.body.has_ended() {
                self.stage = Stage::Ending;
            } else if at == input.len() {
                return (at, at, RecordEvent::Need);
            }
        }
    }
}

impl Socket {
    /// The framing of the records, if this is an HTTP stream.
    pub(super) fn records(&self) -> Option<RecordFraming> {
        self.channel.as_ref().and_then(|channel| channel.records())
    }

    /// Whether this is an HTTP stream whose close was sent.
    pub(super) fn is_through(&self) -> bool {
        !self.is_open() && self.records().is_some()
    }

    /// Whether the client of an HTTP stream has sent its whole request body.
    pub(super) fn has_sent_all(&self) -> bool {
        self.input.has_ended()
    }

    /// Ends the response of an HTTP stream whose client has closed its side after its whole request
    /// body.
    pub(super) fn hang_up(&mut self, out: &mut Vec<u8>) -> StageResult {
        if self.closing.send() {
            self.push_close(out, None, "");
        }
        StageResult::Again
    }

    /// Sends a heartbeat in the framing of the records, which is not a message.
    pub(super) fn push_heartbeat(&self, out: &mut Vec<u8>) {
        if let Some(framing) = self.records() {
            framing.push_alive(out);
        }
    }
}

/// Opens an HTTP stream for the head of a request. All earlier requests must have been answered.
pub(super) fn open(
    request: &Request<'_>,
    body: Body,
    entry: Result<RouteMatch<'_, '_>, RouteRefusal>,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> StageResult {
    let RouteMatch { route, leases, claims, .. } = match entry {
        Ok(entry) => entry,
        Err(refusal) => {
            refuse(refusal, http::Connection::Close, false, out, cx);
            return StageResult::End(Ending::Flush);
        }
    };
    let Some(framing) = request.header("content-type").and_then(RecordFraming::of) else {
        let text = "the Content-Type of a stream must be application/x-ndjson, \
                    application/octet-stream or text";
        return bad(415, text, out, cx);
    };
    let channel = Some(Box::new(Channel::of_records(framing)));
    let half_open = route.endpoint != config::EndpointKind::Echo;
    let max_overhead = cx.env.config.limits.http_head_bytes;
    let records = Box::new(Records::new(framing, body, max_overhead, half_open));
    if let Some(proxy) = &route.proxy {
        let mut head = Vec::new();
        push_head(request, framing, &mut head);
        let policy = ConnectionPolicy::new(route.rules.get().cloned(), leases);
        let upgrade = UpstreamRequest { head, records: Some(records), channel, policy };
        let waiting = PendingUpstream::begin(proxy, request, upgrade, cx);
        return waiting.unwrap_or_else(|(status, text)| bad(status, text, out, cx));
    }
    let opening = Opening {
        now: cx.now,
        conn: cx.conn,
        peer: cx.peer,
        route,
        path: request.path(),
        query: request.query(),
        origin: request.header("origin"),
        secure: cx.secure,
        headers: &request.headers,
        claims: claims.as_ref(),
    };
    push_head(request, framing, out);
    out.extend_from_slice(b"\r\n");
    count(cx);
    enter(Input::Records(records), channel, leases, &opening, out, cx)
}

fn bad(status: u16, text: &str, out: &mut Vec<u8>, cx: &Context<'_>) -> StageResult {
    cx.counters.http_requests.add(1);
    cx.counters.http_errors.add(1);
    let text = format!("{text}\n");
    let response = http::Response::text(status, &text);
    response.connection(http::Connection::Close).push(out);
    StageResult::End(Ending::Flush)
}

/// Counts an HTTP stream that was opened.
pub(super) fn count(cx: &Context<'_>) {
    cx.counters.http_requests.add(1);
    cx.counters.http_streams.add(1);
}

/// Writes the head of the response, without its final blank line. If the request has `Expect:
/// 100-continue`, a 100 response comes first, because not every client accepts a final response in
/// its place (RFC 9110 section 10.1.1).
fn push_head(request: &Request<'_>, framing: RecordFraming, out: &mut Vec<u8>) {
    if request.headers.has_token("Expect", "100-continue") {
        out.extend_from_slice(http::CONTINUE);
    }
    push_status(out, 200);
    push_field(out, "Content-Type", framing.media_type());
    push_field(out, "Transfer-Encoding", "chunked");
    push_field(out, "Trailer", record::TRAILER);
    push_field(out, "Cache-Control", "no-store");
    push_field(out, "Connection", "close");
}
