//! HTTP streams: a request with a streamed body that takes the place of a WebSocket. The records of
//! the request body are the client's messages; messages to the client are records of the response
//! body, which is sent at the same time.
//!
//! Only the framing differs from a WebSocket. [`Input`] reports records as the events of a
//! WebSocket, and the output writes messages in the stream's framing. Endpoints, models, token
//! leases, queues and deadlines are those of a WebSocket. To the upstream of a proxy route it is a
//! WebSocket.
//!
//! The client of a stream of server-sent events has sent a request without a body, and only
//! receives.

use crate::http::Body;
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

    /// A reader that discards everything, for a client that only receives.
    pub(super) fn none() -> Records {
        let records = Records::new(RecordFraming::Lines, Body::EMPTY, 0, true);
        Records { stage: Stage::Over, ..records }
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
