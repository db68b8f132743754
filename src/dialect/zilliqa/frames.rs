//! Composes one message for many peers from bytes of its own and pieces shared with other messages,
//! and splits it into frames of a bounded length.

use crate::mem::{Frozen, Handle};
use crate::ws::Opcode;
use crate::ws::frame::{HEADER_BYTES, Header};

/// The minimum length in bytes of a shared piece. Shorter pieces are copied, since an entry of
/// their own in a vectored send costs as much.
const MIN_SHARED_BYTES: usize = 4096;

/// Composes one text message.
pub(super) struct Composer {
    /// The maximum payload of one frame, in bytes.
    max_bytes: usize,
    /// The complete frames.
    done: Vec<Handle>,
    /// Room for the current frame's header, and its first payload bytes.
    head: Vec<u8>,
    /// The rest of the current frame's payload.
    bits: Vec<Bit>,
    /// The payload bytes of the current frame, and of the message's complete frames.
    len: usize,
    total: usize,
}

enum Bit {
    Own(Vec<u8>),
    Shared(Handle),
}

impl Composer {
    pub(super) fn new(max_bytes: usize) -> Composer {
        let (done, bits) = (Vec::new(), Vec::new());
        Composer {
            max_bytes: max_bytes.max(1),
            done,
            head: vec![0; HEADER_BYTES],
            bits,
            len: 0,
            total: 0,
        }
    }

    /// Appends bytes that are this message's own. They are split at frame boundaries.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.len >= self.max_bytes {
                self.frame(false);
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.max_bytes - self.len));
            match self.bits.last_mut() {
                None => self.head.extend_from_slice(now),
                Some(Bit::Own(own)) => own.extend_from_slice(now),
                Some(Bit::Shared(_)) => self.bits.push(Bit::Own(now.to_vec())),
            }
            self.len += now.len();
            bytes = later;
        }
    }

    /// Appends pieces that other messages share. A piece is never split: one that is longer than a
    /// frame gets a longer frame of its own.
    pub(super) fn share(&mut self, pieces: &[Handle]) {
        for piece in pieces {
            if piece.len() < MIN_SHARED_BYTES {
                self.push(piece);
                continue;
            }
            if self.len > 0 && self.len + piece.len() > self.max_bytes {
                self.frame(false);
            }
            self.len += piece.len();
            self.bits.push(Bit::Shared(piece.clone()));
        }
    }

    /// The payload bytes so far.
    pub(super) fn len(&self) -> usize {
        self.total + self.len
    }

    /// Completes the last frame, and returns the message's frames.
    pub(super) fn finish(mut self) -> Vec<Handle> {
        self.frame(true);
        self.done
    }

    fn frame(&mut self, fin: bool) {
        let opcode = if self.total == 0 { Opcode::Text } else { Opcode::Continuation };
        let header = Header { fin, rsv1: false, opcode, mask: None, len: self.len as u64 };
        let mut bytes = [0; HEADER_BYTES];
        let start = HEADER_BYTES - header.write(&mut bytes);
        self.head[start..HEADER_BYTES].copy_from_slice(&bytes[..HEADER_BYTES - start]);
        self.done.push(Handle::new(Frozen::new(&self.head[start..])));
        self.done.extend(self.bits.drain(..).map(|bit| match bit {
            Bit::Own(own) => Handle::new(Frozen::new(&own)),
            Bit::Shared(piece) => piece,
        }));
        self.total += self.len;
        self.len = 0;
        self.head.truncate(HEADER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::{FrameEvent, FrameLimits, MessageKind, Reader, Role};

    /// The payload length of each frame, and the whole message as a peer reads it.
    fn read(handles: &[Handle]) -> (Vec<usize>, String) {
        let mut bytes: Vec<u8> = handles.iter().flat_map(|handle| handle.to_vec()).collect();
        let mut lengths = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (head, len) = match bytes[at + 1] {
                126 => (4, usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]))),
                127 => {
                    let len: [u8; 8] = bytes[at + 2..at + 10].try_into().expect("eight");
                    (10, u64::from_be_bytes(len) as usize)
                }
                len => (2, usize::from(len)),
            };
            lengths.push(len);
            at += head + len;
        }
        let (mut reader, mut at) = (Reader::new(), 0);
        loop {
            let (taken, event) =
                reader.next(Role::Client, &FrameLimits::default(), &mut bytes[at..]);
            at += taken;
            match event {
                FrameEvent::Message { kind: MessageKind::Text, payload, .. } => {
                    let text = String::from_utf8(payload.to_vec()).expect("UTF-8");
                    assert_eq!(at, bytes.len());
                    return (lengths, text);
                }
                FrameEvent::Need if taken > 0 => {}
                event => panic!("{event:?} of {lengths:?}"),
            }
        }
    }

    #[test]
    fn zilliqa_long_message_is_cut_into_frames() {
        let mut one = Composer::new(10);
        one.push(b"0123");
        one.push(b"456789");
        assert_eq!(one.len(), 10);
        assert_eq!(read(&one.finish()), (vec![10], "0123456789".to_owned()));
        let mut two = Composer::new(10);
        two.push(b"0123456789a");
        assert_eq!(read(&two.finish()), (vec![10, 1], "0123456789a".to_owned()));
        let mut many = Composer::new(2);
        many.push("é0é".as_bytes());
        assert_eq!(read(&many.finish()), (vec![2, 2, 1], "é0é".to_owned()));
    }

    #[test]
    fn zilliqa_long_piece_is_shared_and_short_one_copied() {
        let long = Handle::new(Frozen::new(&vec![b'l'; MIN_SHARED_BYTES]));
        let short = Handle::new(Frozen::new(&vec![b's'; MIN_SHARED_BYTES - 1]));
        let mut out = Composer::new(3 * MIN_SHARED_BYTES - 1);
        out.push(b"a");
        out.share(std::slice::from_ref(&short));
        out.share(&[long.clone(), long.clone()]);
        out.push(b"z");
        let handles = out.finish();
        assert_eq!(handles.len(), 5, "the second frame begins behind the first long piece");
        assert_eq!(handles[1].as_ptr(), long.as_ptr());
        let (lengths, text) = read(&handles);
        assert_eq!(lengths, [2 * MIN_SHARED_BYTES, MIN_SHARED_BYTES + 1]);
        assert_eq!(text.len(), 3 * MIN_SHARED_BYTES + 1);
        assert!(text.starts_with("as") && text.ends_with("lz"));
    }

    #[test]
    fn zilliqa_piece_longer_than_a_frame_has_its_own() {
        let long = Handle::new(Frozen::new(&vec![b'l'; 2 * MIN_SHARED_BYTES]));
        let mut out = Composer::new(10);
        out.share(&[long]);
        out.push(b"z");
        assert_eq!(read(&out.finish()).0, [2 * MIN_SHARED_BYTES, 1]);
    }
}
