//! One receiver for each crate. All get the same bytes in the same pieces.
//!
//! A receiver lives as long as a connection: it is made once and keeps its buffers. To receive a
//! piece is one copy into the buffer that the crate parses in, for every crate.

use std::future::Future;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use polycast::ws::{FrameEvent, FrameLimits, Opcode, Reader, Role, frame};
use sockudo_ws::frame::FrameParser;
use sockudo_ws::protocol::{Message, Protocol};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::WebSocketConfig;

/// The number of messages and of payload octets.
pub type Sum = (usize, usize);

/// The maximum message size of every receiver in bytes; larger than any message of the benchmarks.
const LIMIT: usize = 16 << 20;

/// `count` masked frames with `payload` octets in total, of which `piece` bytes arrive at a time.
pub struct Input {
    pub bytes: Vec<u8>,
    pub piece: usize,
    pub count: usize,
    pub payload: usize,
}

impl Input {
    /// Frames that arrive whole: as many at a time as fit into 60 KiB, but at least one.
    pub fn whole(opcode: Opcode, payload: &[u8]) -> Input {
        let all = Input::frames(opcode, payload, (60 << 10) / payload.len());
        Input { piece: all.bytes.len(), ..all }
    }

    /// Frames that are cut every 1400 bytes, the payload of a TCP segment.
    pub fn pieces(opcode: Opcode, payload: &[u8]) -> Input {
        let all = Input::frames(opcode, payload, (64 << 10) / payload.len());
        Input { piece: 1400, ..all }
    }

    fn frames(opcode: Opcode, payload: &[u8], count: usize) -> Input {
        let count = count.max(1);
        let mut bytes = Vec::new();
        for _ in 0..count {
            frame::push(&mut bytes, opcode, payload, Some(KEY));
        }
        Input { bytes, piece: 0, count, payload: count * payload.len() }
    }
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Receives all of an input once.
pub trait Receiver {
    fn receive(&mut self) -> Sum;
}

/// All receivers with their names; the first one only copies.
pub fn all<'a>(input: &'a Input) -> Vec<(&'static str, Box<dyn Receiver + 'a>)> {
    vec![
        ("copy", Box::new(Copy::new(input))),
        ("polycast", Box::new(Polycast::new(input))),
        ("fastwebsockets", Box::new(FastWebSockets::new(input))),
        ("sockudo-ws", Box::new(Sockudo::new(input))),
        ("sockudo-ws parser", Box::new(SockudoParser::new(input))),
        ("tungstenite", Box::new(Tungstenite::new(input))),
    ]
}

fn count(sum: &mut Sum, payload: &[u8]) {
    *sum = (sum.0 + 1, sum.1 + black_box(payload).len());
}

/// Only the copy into the receive buffer, which is the lower bound for every receiver.
struct Copy<'a> {
    input: &'a Input,
    buf: Vec<u8>,
}

impl<'a> Copy<'a> {
    fn new(input: &'a Input) -> Self {
        Copy { input, buf: vec![0; input.piece] }
    }
}

impl Receiver for Copy<'_> {
    fn receive(&mut self) -> Sum {
        for part in self.input.bytes.chunks(self.input.piece) {
            let buf = &mut self.buf[..part.len()];
            buf.copy_from_slice(part);
            black_box(buf);
        }
        (self.input.count, self.input.payload)
    }
}

/// The reader of the server, on a receive buffer like those that a ring provides.
struct Polycast<'a> {
    input: &'a Input,
    reader: Reader,
    limits: FrameLimits,
    buf: Vec<u8>,
}

impl<'a> Polycast<'a> {
    fn new(input: &'a Input) -> Self {
        let limits = FrameLimits::default();
        Polycast { input, reader: Reader::new(), limits, buf: vec![0; input.piece] }
    }
}

impl Receiver for Polycast<'_> {
    fn receive(&mut self) -> Sum {
        let mut sum = (0, 0);
        for part in self.input.bytes.chunks(self.input.piece) {
            let mut buf = &mut self.buf[..part.len()];
            buf.copy_from_slice(part);
            loop {
                let (taken, event) = self.reader.next(Role::Server, &self.limits, buf);
                match event {
                    FrameEvent::Message { payload, .. } => count(&mut sum, payload),
                    FrameEvent::Need => break,
                    other => panic!("{other:?}"),
                }
                buf = &mut buf[taken..];
            }
        }
        sum
    }
}

/// `WebSocket::read_frame`, the fastest call that returns unmasked and checked frames.
struct FastWebSockets<'a> {
    count: usize,
    socket: fastwebsockets::WebSocket<Wire<'a>>,
}

impl<'a> FastWebSockets<'a> {
    fn new(input: &'a Input) -> Self {
        let role = fastwebsockets::Role::Server;
        let socket = fastwebsockets::WebSocket::after_handshake(Wire::new(input), role);
        FastWebSockets { count: input.count, socket }
    }
}

impl Receiver for FastWebSockets<'_> {
    fn receive(&mut self) -> Sum {
        at_once(async {
            let mut sum = (0, 0);
            for _ in 0..self.count {
                let frame = self.socket.read_frame().await.expect("a good frame");
                count(&mut sum, &frame.payload);
            }
            sum
        })
    }
}

/// `Protocol::process_into`, which reuses the list of messages.
struct Sockudo<'a> {
    input: &'a Input,
    protocol: Protocol,
    buf: BytesMut,
    messages: Vec<Message>,
}

impl<'a> Sockudo<'a> {
    fn new(input: &'a Input) -> Self {
        let protocol = Protocol::new(sockudo_ws::Role::Server, LIMIT, LIMIT);
        let buf = BytesMut::with_capacity(sockudo_ws::RECV_BUFFER_SIZE);
        Sockudo { input, protocol, buf, messages: Vec::new() }
    }
}

impl Receiver for Sockudo<'_> {
    fn receive(&mut self) -> Sum {
        let mut sum = (0, 0);
        for part in self.input.bytes.chunks(self.input.piece) {
            self.buf.extend_from_slice(part);
            self.protocol.process_into(&mut self.buf, &mut self.messages).expect("good frames");
            for message in self.messages.drain(..) {
                count(&mut sum, message.as_bytes());
            }
        }
        sum
    }
}

/// Only `FrameParser::parse` and `validate_utf8`: no list of messages, no fragments, and text is
/// checked when it is complete.
struct SockudoParser<'a> {
    input: &'a Input,
    parser: FrameParser,
    buf: BytesMut,
}

impl<'a> SockudoParser<'a> {
    fn new(input: &'a Input) -> Self {
        let buf = BytesMut::with_capacity(sockudo_ws::RECV_BUFFER_SIZE);
        SockudoParser { input, parser: FrameParser::new(LIMIT, true), buf }
    }
}

impl Receiver for SockudoParser<'_> {
    fn receive(&mut self) -> Sum {
        let mut sum = (0, 0);
        for part in self.input.bytes.chunks(self.input.piece) {
            self.buf.extend_from_slice(part);
            while let Some(frame) = self.parser.parse(&mut self.buf).expect("good frames") {
                let text = frame.header.opcode == sockudo_ws::OpCode::Text;
                assert!(!text || sockudo_ws::utf8::validate_utf8(&frame.payload));
                count(&mut sum, &frame.payload);
            }
        }
        sum
    }
}

/// `WebSocket::read` with a read buffer that holds every piece whole.
struct Tungstenite<'a> {
    count: usize,
    socket: tungstenite::WebSocket<Wire<'a>>,
}

impl<'a> Tungstenite<'a> {
    fn new(input: &'a Input) -> Self {
        let size = input.piece.clamp(4 << 10, 128 << 10);
        let config = Some(WebSocketConfig::default().read_buffer_size(size));
        let role = tungstenite::protocol::Role::Server;
        let socket = tungstenite::WebSocket::from_raw_socket(Wire::new(input), role, config);
        Tungstenite { count: input.count, socket }
    }
}

impl Receiver for Tungstenite<'_> {
    fn receive(&mut self) -> Sum {
        let mut sum = (0, 0);
        for _ in 0..self.count {
            match self.socket.read().expect("a good message") {
                tungstenite::Message::Text(text) => count(&mut sum, text.as_bytes()),
                tungstenite::Message::Binary(bytes) => count(&mut sum, &bytes),
                other => panic!("{other:?}"),
            }
        }
        sum
    }
}

/// A socket that returns the input repeatedly and is always ready.
struct Wire<'a> {
    input: &'a Input,
    at: usize,
}

impl<'a> Wire<'a> {
    fn new(input: &'a Input) -> Self {
        Wire { input, at: 0 }
    }

    /// Returns the next octets, at most `max`.
    fn next(&mut self, max: usize) -> &'a [u8] {
        if self.at == self.input.bytes.len() {
            self.at = 0;
        }
        let rest = &self.input.bytes[self.at..];
        let now = &rest[..rest.len().min(max).min(self.input.piece)];
        self.at += now.len();
        now
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let now = self.next(buf.len());
        buf[..now.len()].copy_from_slice(now);
        Ok(now.len())
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.next(buf.remaining());
        buf.put_slice(now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns the output of a future that is ready at its first poll.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the wire is always ready"),
    }
}
