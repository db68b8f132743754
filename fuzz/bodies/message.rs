//! Messages of frames that operations make, right and wrong, against a model that judges each
//! operation as a whole.

use super::{Script, frame, pieces};
use polycast::ws::{FrameEvent, FrameLimits, MessageKind, Role, Violation, close};

/// The maximum octets of a stream; more would find nothing new.
const STREAM: usize = 80_000;

struct Model {
    role: Role,
    limits: FrameLimits,
    open: Option<Open>,
    stream: Vec<u8>,
    message: Vec<frame::OwnedEvent>,
}

struct Open {
    kind: MessageKind,
    compressed: bool,
    frames: u32,
    payload: Vec<u8>,
}

/// One frame, as its sender means it.
struct Frame<'a> {
    first: u8,
    masked: bool,
    /// The length stands in eight octets, however small it is.
    wide: bool,
    payload: &'a [u8],
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let (Some(flags), Some(seed)) = (script.byte(), script.byte()) else { return };
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let limits = match flags & 2 {
        0 => FrameLimits { allow_rsv1: flags & 4 != 0, ..FrameLimits::default() },
        _ => FrameLimits { frame_bytes: 200, message_bytes: 300, fragments: 3, allow_rsv1: true },
    };
    let mut model = Model { role, limits, open: None, stream: Vec::new(), message: Vec::new() };
    while let Some(op) = script.byte() {
        let opcode = [1, 2, 0, 0, 9, 10, 8, 0][usize::from(op & 7)];
        // What is not odd is whole control frames and messages that go on.
        let fin = (op & 8 != 0) != (opcode >= 8);
        let first = match op & 7 {
            7 => script.byte().unwrap_or(0x83),
            _ => u8::from(fin) << 7 | (op & 16) << 2 | opcode,
        };
        let payload = payload(&mut script);
        let frame = Frame {
            first,
            masked: role.peer_masks() != (op >> 5 == 6),
            wide: op >> 5 == 7,
            payload: &payload,
        };
        if model.stream.len() + payload.len() > STREAM {
            break;
        }
        frame.write(&mut model.stream);
        let goes_on = model.frame(&frame).unwrap_or_else(|violation| {
            model.message.push(frame::describe(&FrameEvent::Violation(violation)));
            false
        });
        if !goes_on {
            // No longer checked.
            model.stream.extend_from_slice(script.take(100));
            break;
        }
    }
    let Model { stream, message, .. } = &model;
    let hear = |pieces: &[&[u8]]| frame::message(role, &limits, pieces);
    assert_eq!(&hear(&[stream]), message, "whole");
    let cut = match stream.len() {
        0..20_000 => pieces(stream, seed),
        _ => stream.chunks(1000 + usize::from(seed) * 7).collect(),
    };
    assert_eq!(&hear(&cut), message, "in pieces");
    if stream.len() < 2000 {
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(&hear(&single), message, "octet by octet");
    }
}

/// As much as a byte says: octets of the script, or one octet many times.
fn payload(script: &mut Script<'_>) -> Vec<u8> {
    match script.byte().unwrap_or(0) {
        len @ 0..=199 => script.take(len.into()).to_vec(),
        255 => vec![b'z'; 0x1_0000],
        long => vec![b'z'; usize::from(long - 200) * 130],
    }
}

impl Frame<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let len = self.payload.len();
        let mask = u8::from(self.masked) << 7;
        out.push(self.first);
        match len {
            0..=125 if !self.wide => out.push(mask | len as u8),
            126..=0xffff if !self.wide => {
                out.push(mask | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let key = if self.masked { [0x81, 0x02, 0xf3, 0x44] } else { [0; 4] };
        out.extend_from_slice(if self.masked { &key } else { &[] });
        out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(octet, key)| octet ^ key));
    }
}

impl Model {
    /// Whether the connection stays open.
    fn frame(&mut self, frame: &Frame<'_>) -> Result<bool, Violation> {
        self.head(frame)?;
        match frame.first & 15 {
            8 => {
                let (code, reason) = close::parse(frame.payload)?;
                self.message.push(frame::describe(&FrameEvent::Close { code, reason }));
                return Ok(false);
            }
            9 => self.message.push(frame::describe(&FrameEvent::Ping(frame.payload))),
            10 => self.message.push(frame::describe(&FrameEvent::Pong(frame.payload))),
            opcode => self.data(frame, opcode)?,
        }
        Ok(true)
    }

    fn head(&self, frame: &Frame<'_>) -> Result<(), Violation> {
        let (fin, opcode) = (frame.first & 0x80 != 0, frame.first & 15);
        let rsv1_fits = self.limits.allow_rsv1 && matches!(opcode, 1 | 2);
        let used = self.open.as_ref().map_or(0, |open| open.payload.len());
        let frames = self.open.as_ref().map_or(0, |open| open.frames);
        let len = frame.payload.len();
        let room = (self.limits.message_bytes - used as u64).min(self.limits.frame_bytes) as usize;
        let data = opcode < 8;
        let rules = [
            (frame.first & 0x30 != 0, Violation::ReservedBits),
            (!matches!(opcode, 0..=2 | 8..=10), Violation::ReservedOpcode),
            (frame.first & 0x40 != 0 && !rsv1_fits, Violation::ReservedBits),
            (!data && !fin, Violation::FragmentedControl),
            (opcode == 0 && self.open.is_none(), Violation::LooseContinuation),
            (matches!(opcode, 1 | 2) && self.open.is_some(), Violation::InterruptedMessage),
            (data && frames == self.limits.fragments, Violation::TooManyFragments),
            (self.role.peer_masks() && !frame.masked, Violation::Unmasked),
            (!self.role.peer_masks() && frame.masked, Violation::Masked),
            (!data && (len > 125 || frame.wide), Violation::LongControl),
            (opcode == 8 && len == 1, Violation::HalfCloseCode),
            // A length in eight octets is one of 65536 at least.
            (data && frame.wide && room < 0x1_0000, Violation::TooBig),
            (frame.wide && len < 0x1_0000, Violation::OverlongLength),
            (data && len > room, Violation::TooBig),
        ];
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, violation)) => Err(*violation),
            None => Ok(()),
        }
    }

    fn data(&mut self, frame: &Frame<'_>, opcode: u8) -> Result<(), Violation> {
        let open = self.open.get_or_insert_with(|| Open {
            kind: if opcode == 1 { MessageKind::Text } else { MessageKind::Binary },
            compressed: frame.first & 0x40 != 0,
            frames: 0,
            payload: Vec::new(),
        });
        open.frames += 1;
        open.payload.extend_from_slice(frame.payload);
        let fin = frame.first & 0x80 != 0;
        if open.kind == MessageKind::Text
            && !open.compressed
            && str::from_utf8(&open.payload).is_err_and(|it| fin || it.error_len().is_some())
        {
            return Err(Violation::TextNotUtf8);
        }
        if fin && let Some(mut open) = self.open.take() {
            let (kind, compressed, payload) = (open.kind, open.compressed, &mut open.payload[..]);
            self.message.push(frame::describe(&FrameEvent::Message { kind, compressed, payload }));
        }
        Ok(())
    }
}
