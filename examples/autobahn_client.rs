//! Runs every case of an Autobahn fuzzing server against the client role of `polycast::ws`:
//! `autobahn_client HOST:PORT`. Each message is echoed, as the test suite requires.

use polycast::crypto::{encode_base64, websocket_accept};
use polycast::ws::close::{self, CloseHandshake};
use polycast::ws::extension::{self, Agreed};
use polycast::ws::output::{Channel, Codecs, Output};
use polycast::ws::{FrameEvent, FrameLimits, MessageKind, Opcode, Reader, Role, Unpacked, frame};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: autobahn_client HOST:PORT")?;
    let mut count = String::new();
    Client::connect(&address, "/getCaseCount", false)?.run(|_, payload| {
        count = String::from_utf8_lossy(payload).into_owned();
        None
    })?;
    let count: u32 = count.parse()?;
    for case in 1..=count {
        let path = format!("/runCase?case={case}&agent=polycast");
        let client = Client::connect(&address, &path, true)?;
        // The server may end the connection in any way, because it violates the protocol on
        // purpose.
        let _ = client.run(|kind, payload| Some((kind, payload.to_vec())));
    }
    Client::connect(&address, "/updateReports?agent=polycast", false)?.run(|_, _| None)?;
    println!("{count} cases were run");
    Ok(())
}

struct Client {
    stream: TcpStream,
    reader: Reader,
    limits: FrameLimits,
    codecs: Codecs,
    channel: Option<Channel>,
    closing: CloseHandshake,
    /// Bytes that arrived after the server's handshake response.
    early: Vec<u8>,
    keys: u32,
}

impl Client {
    fn connect(address: &str, path: &str, compress: bool) -> Result<Client, Box<dyn Error>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let key = encode_base64(b"polycast's client");
        let key = &encode_base64(&key.as_bytes()[..16]);
        let offer = match compress {
            true => format!("Sec-WebSocket-Extensions: {}\r\n", extension::OFFER),
            false => String::new(),
        };
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n{offer}\r\n"
        )?;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece)? {
                0 => return Err("the server closed the connection during the handshake".into()),
                n => answer.extend_from_slice(&piece[..n]),
            }
        };
        let early = answer.split_off(end);
        let head = String::from_utf8(answer)?;
        let accept = websocket_accept(key);
        if !head.starts_with("HTTP/1.1 101") || !head.contains(std::str::from_utf8(&accept)?) {
            return Err(format!("the upgrade was refused: {head}").into());
        }
        let values = head.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Sec-WebSocket-Extensions").then(|| value.trim())
        });
        let agreed: Option<Agreed> = extension::read_answer(values)?;
        let mut codecs = Codecs::new(1 << 20);
        let channel = agreed.and_then(|agreed| Channel::new(agreed, 0, &mut codecs));
        let limits = FrameLimits { allow_rsv1: channel.is_some(), ..FrameLimits::default() };
        let (reader, closing) = (Reader::new(), CloseHandshake::default());
        Ok(Client { stream, reader, limits, codecs, channel, closing, early, keys: 1 })
    }

    fn key(&mut self) -> [u8; 4] {
        // Predictable masking keys suffice for a peer on the same machine; RFC 6455 section 5.3
        // requires unpredictable ones.
        self.keys = self.keys.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.keys.to_be_bytes()
    }

    /// Reads messages until the connection ends; `answer` may return a reply to each.
    fn run(
        mut self,
        mut answer: impl FnMut(MessageKind, &[u8]) -> Option<(MessageKind, Vec<u8>)>,
    ) -> io::Result<()> {
        let mut input = std::mem::take(&mut self.early);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut at = 0;
            let mut out = Vec::new();
            while self.take(&mut input[..], &mut at, &mut out, &mut answer) {}
            self.stream.write_all(&out)?;
            if self.closing == CloseHandshake::Done {
                // The server closes the TCP connection first (RFC 6455 section 7.1.1).
                let _ = self.stream.shutdown(Shutdown::Write);
                while self.stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
                return Ok(());
            }
            let n = self.stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            input.clear();
            input.extend_from_slice(&buffer[..n]);
        }
    }

    /// Processes one event of the input; false if there is none.
    fn take(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        out: &mut Vec<u8>,
        answer: &mut impl FnMut(MessageKind, &[u8]) -> Option<(MessageKind, Vec<u8>)>,
    ) -> bool {
        let key = self.key();
        let (taken, event) = self.reader.next(Role::Client, &self.limits, &mut input[*at..]);
        *at += taken;
        let open = self.closing.may_send_data();
        let violation = match event {
            FrameEvent::Need => return false,
            FrameEvent::Message { kind, compressed, payload } => {
                let message = match (&mut self.channel, compressed) {
                    (Some(channel), true) => {
                        let max = self.limits.message_bytes;
                        let mut unpacked = channel.unpack(kind, payload, max, &mut self.codecs);
                        while unpacked == Ok(Unpacked::Busy) {
                            self.codecs.new_turn();
                            unpacked = channel.continue_unpacking(max, &mut self.codecs);
                        }
                        match unpacked {
                            Ok(Unpacked::Whole(_, message)) => Some(message),
                            _ => None,
                        }
                    }
                    _ => Some(payload.to_vec()),
                };
                let reply = message.as_deref().and_then(|message| answer(kind, message));
                if let Some((kind, payload)) = reply.filter(|_| open) {
                    let mut output = match &mut self.channel {
                        Some(channel) => channel.output(out, &mut self.codecs),
                        None => Output::plain(out),
                    };
                    output.mask = Some(key);
                    output.message(kind, &payload);
                }
                message.is_none().then_some((close::INVALID_DATA, "damaged"))
            }
            FrameEvent::Ping(payload) => {
                if open {
                    frame::push(out, Opcode::Pong, payload, Some(key));
                }
                None
            }
            FrameEvent::Pong(_) => None,
            FrameEvent::Close { code, .. } => {
                if self.closing.receive() && self.closing.send() {
                    let payload = close::payload(code.unwrap_or(close::NO_CODE), "");
                    frame::push(out, Opcode::Close, &payload, Some(key));
                }
                None
            }
            FrameEvent::Violation(violation) => Some((violation.code(), violation.reason())),
        };
        if let Some((code, reason)) = violation
            && self.closing.send()
        {
            frame::push(out, Opcode::Close, &close::payload(code, reason), Some(key));
            self.closing = CloseHandshake::Done;
        }
        true
    }
}
