//! A request with a streamed body in the place of a WebSocket: its messages are the records of the
//! body, and those to the client are records of the answer, which goes on meanwhile.
//!
//! Only the framing differs. What comes in is told in the events of a WebSocket ([`Input`]), what
//! goes out is written by an output that knows the framing; endpoints, models, leases, queues and
//! deadlines are those of a WebSocket. To the upstream of a proxy it is one.

use super::request::{enter, refuse};
use super::socket::{Socket, Terms};
use super::upstream::{Waiting, Wish};
use super::{After, Ending, Surroundings};
use crate::config;
use crate::dialect::Opening;
use crate::gateway::{Entry, Refusal};
use crate::http::{self, Body, Request, push_field, push_status};
use crate::time::Deadline;
use crate::ws::output::Channel;
use crate::ws::record::{self, Found, Framing};
use crate::ws::{self, Event, Kind, Role, Violation};

/// How what comes from the client is read.
pub(super) enum Input {
    /// The frames of a WebSocket.
    Frames(ws::Reader),
    /// Those of one that we have opened, at a server.
    Answers(ws::Reader),
    /// The records of a body.
    Records(Box<Records>),
}

/// The records of a body.
pub(super) struct Records {
    body: Body,
    reader: record::Reader,
    /// Bytes that a chunk may have beside its data.
    aside: usize,
    /// Whether a client that has said all may go on listening.
    half_open: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Body,
    /// The body has ended; what that means is still to be told.
    Ending,
    /// Nothing more is read.
    Over,
}

impl Input {
    /// Those of a WebSocket that has just been opened.
    pub(super) const FRAMES: Input = Input::Frames(ws::Reader::new());

    pub(super) fn next<'a>(
        &'a mut self,
        limits: &ws::Limits,
        input: &'a mut [u8],
    ) -> (usize, Event<'a>) {
        match self {
            Input::Frames(reader) => reader.next(Role::Server, limits, input),
            Input::Answers(reader) => reader.next(Role::Client, limits, input),
            Input::Records(records) => records.next(limits, input),
        }
    }

    /// What has come of an unfinished message that is compressed.
    pub(super) fn take_compressed(&mut self) -> Option<(Kind, Vec<u8>)> {
        match self {
            Input::Frames(reader) | Input::Answers(reader) => reader.take_compressed(),
            Input::Records(_) => None,
        }
    }

    /// How many empty frames there were, those left out that are messages.
    pub(super) fn take_empty_frames(&mut self) -> u16 {
        match self {
            Input::Frames(reader) | Input::Answers(reader) => reader.take_empty_frames(),
            Input::Records(_) => 0,
        }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn mid_message(&self) -> bool {
        match self {
            Input::Frames(reader) | Input::Answers(reader) => reader.mid_message(),
            Input::Records(records) => records.stage != Stage::Over && records.reader.mid_record(),
        }
    }

    /// Whether a further step without input would find nothing to do.
    pub(super) fn keeps_nothing(&self) -> bool {
        match self {
            Input::Frames(reader) | Input::Answers(reader) => reader.held_bytes() == 0,
            Input::Records(records) => records.keeps_nothing(),
        }
    }

    /// Whether the client has said all that it will say, in a way that lets it listen on.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Input::Records(records) if records.stage == Stage::Over)
    }
}

impl Records {
    pub(super) fn new(framing: Framing, body: Body, aside: usize, half_open: bool) -> Records {
        let reader = record::Reader::new(framing);
        Records { body, reader, aside, half_open, stage: Stage::Body }
    }

    fn keeps_nothing(&self) -> bool {
        let told = match self.stage {
            Stage::Body => !self.body.has_ended(),
            Stage::Ending => false,
            Stage::Over => true,
        };
        told && self.reader.held_bytes() == 0
    }

    fn next<'a>(&'a mut self, limits: &ws::Limits, input: &'a mut [u8]) -> (usize, Event<'a>) {
        let was_over = self.stage == Stage::Over;
        let (taken, start, found) = self.advance(limits, input);
        let event = match found {
            Found::Need if !was_over && !self.half_open && self.stage == Stage::Over => {
                Event::Close { code: None, reason: "" }
            }
            Found::Need => Event::Need,
            Found::Alive => Event::Pong(&[]),
            Found::Violation(violation) => {
                self.stage = Stage::Over;
                return (input.len(), Event::Violation(violation));
            }
            Found::Message(kind, place) => {
                let payload = self.reader.payload(place, &mut input[start..]);
                Event::Message { kind, compressed: false, payload }
            }
        };
        (taken, event)
    }

    /// Goes through `input` up to the first thing worth telling: how much of it is done with, where
    /// the piece begins that the finding speaks of, and the finding.
    fn advance(&mut self, limits: &ws::Limits, input: &[u8]) -> (usize, usize, Found) {
        let mut at = 0;
        loop {
            match self.stage {
                Stage::Over => return (input.len(), at, Found::Need),
                Stage::Ending => match self.reader.end(limits) {
                    Found::Need => {
                        self.stage = Stage::Over;
                        continue;
                    }
                    found => return (at, at, found),
                },
                Stage::Body => {}
            }
            let Ok(stretch) = self.body.look(self.aside, &input[at..]) else {
                return (input.len(), at, Found::Violation(Violation::Chunk));
            };
            let (from, to) = (at + stretch.from, at + stretch.to);
            // Also without data: it takes back what was given.
            let (taken, found) = self.reader.next(limits, &input[from..to]);
            self.body.took(taken);
            at = from + taken;
            if found != Found::Need {
                return (at, from, found);
            }
            if self.body.has_ended() {
                self.stage = Stage::Ending;
            } else if at == input.len() {
                return (at, at, Found::Need);
            }
        }
    }
}

impl Socket {
    /// The framing, if it is a stream.
    pub(super) fn records(&self) -> Option<Framing> {
        self.channel.as_ref().and_then(|channel| channel.records())
    }

    /// Whether it is a stream that has ended.
    pub(super) fn is_through(&self) -> bool {
        !self.is_open() && self.records().is_some()
    }

    /// Whether the client of a stream has said all that it will say.
    pub(super) fn has_said_all(&self) -> bool {
        self.input.has_ended()
    }

    /// Ends a stream whose client has gone after all was said.
    pub(super) fn hang_up(&mut self, out: &mut Vec<u8>) -> After {
        if self.closing.send() {
            self.push_close(out, None, "");
        }
        After::Again
    }

    /// Shows the client of a stream that we are there. It has no answer to that: whether it is
    /// there itself shows in what it takes.
    pub(super) fn say_alive(
        &mut self,
        silence_ms: u64,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        around: &Surroundings<'_>,
    ) -> After {
        if let Some(framing) = self.records() {
            framing.push_alive(out);
        }
        self.heard = around.now.ms as u32;
        *deadline = around.now.plus_ms(silence_ms).min(self.own_deadline());
        After::Again
    }
}

/// Answers the head of a request whose body is streamed, all earlier requests being answered.
pub(super) fn open(
    request: &Request<'_>,
    body: Body,
    entry: Result<Entry<'_, '_>, Refusal>,
    out: &mut Vec<u8>,
    around: &mut Surroundings<'_>,
) -> After {
    let Entry { route, leases, claims, .. } = match entry {
        Ok(entry) => entry,
        Err(refusal) => {
            refuse(refusal, http::Connection::Close, false, out, around);
            return After::End(Ending::Flush);
        }
    };
    let Some(framing) = request.header("content-type").and_then(Framing::of) else {
        let text = "a stream is application/x-ndjson, application/octet-stream or text";
        return bad(415, text, out, around);
    };
    let channel = Some(Box::new(Channel::of_records(framing)));
    let half_open = route.endpoint != config::Endpoint::Echo;
    let aside = around.env.config.limits.http_head_bytes;
    let records = Box::new(Records::new(framing, body, aside, half_open));
    if let Some(proxy) = &route.proxy {
        let mut head = Vec::new();
        push_head(request, framing, &mut head);
        let terms = Terms::new(route.rules.get().cloned(), leases);
        let wish = Wish { head, records: Some(records), channel, terms };
        let waiting = Waiting::begin(proxy, request, wish, around);
        return waiting.unwrap_or_else(|(status, text)| bad(status, text, out, around));
    }
    let opening = Opening {
        route,
        path: request.path(),
        query: request.query(),
        origin: request.header("origin"),
        secure: around.secure,
        headers: &request.headers,
        claims: claims.as_ref(),
    };
    push_head(request, framing, out);
    out.extend_from_slice(b"\r\n");
    count(around);
    enter(Input::Records(records), channel, leases, &opening, out, around)
}

fn bad(status: u16, text: &str, out: &mut Vec<u8>, around: &Surroundings<'_>) -> After {
    around.counters.http_requests.add(1);
    around.counters.http_errors.add(1);
    let text = format!("{text}\n");
    let response = http::Response::text(status, &text);
    response.connection(http::Connection::Close).push(out);
    After::End(Ending::Flush)
}

/// Counts a stream that was opened.
pub(super) fn count(around: &Surroundings<'_>) {
    around.counters.http_requests.add(1);
    around.counters.http_streams.add(1);
}

/// Writes the head of the answer, but for its blank line. A client that waits to be told to send
/// its body is told: not every one takes the answer itself for that (RFC 9110 section 10.1.1).
fn push_head(request: &Request<'_>, framing: Framing, out: &mut Vec<u8>) {
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
