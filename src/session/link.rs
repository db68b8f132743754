//! The byte side of a connection: the write queue, the TLS state, the reasons for which reading is
//! paused, the deadline, and how the connection ends.
//!
//! Bytes in the queue and the deadline are those of one stage at a time. The link must not know
//! which stage that is.

use super::Context;
use super::ending::Ending;
use super::pause::{HeldInput, READ_AHEAD, Share, TurnTime};
use super::queue::WriteQueue;
use crate::http::{Connection, Response};
use crate::mem::Segment;
use crate::time::{Deadline, Now};
use crate::tls::{Filter, PeerCertificate, TlsFailure};
use crate::work::{self, WorkKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The bit that says that a connection is counted for its client's address, which then does not
/// change. No server has so many listeners.
const CHARGED: u16 = 1 << 15;

/// See the module's documentation.
pub struct Link {
    pub(super) queue: WriteQueue,
    /// The TLS state, if the connection uses TLS.
    filter: Option<Box<Filter>>,
    /// Input that is held while reading is paused, and whether reading is paused.
    held: Option<Box<HeldInput>>,
    paused: bool,
    /// How much of its share of this turn the connection has used.
    share: Share,
    /// The number of the connection's tokens that were not accepted.
    pub(super) failures: u8,
    /// Whether the peer has ended its side.
    pub(super) eof: bool,
    ending: Ending,
    /// Whether this session is on the shard's list of pending work. Only the shard sets it.
    pub listed: bool,
    /// Whether the shard counts this session among those without a whole request. Only the shard
    /// sets it.
    pub counted_fresh: bool,
    /// Whether this session is on one of the shard's lists of paused connections. Only the shard
    /// sets it.
    pub waits: bool,
    pub(super) deadline: Deadline,
    /// The client's address and port, without the padding of a `SocketAddr`. An IPv4 address is
    /// stored as an IPv4-mapped IPv6 address.
    ip: [u8; 16],
    port: u16,
    /// The number of the listener, with the bit [`CHARGED`]. A byte of its own for the bit would
    /// take a session to the allocator's next size class.
    listener: u16,
    /// Whether reading is paused because the core is short of memory.
    starved: bool,
}

/// What the decryption of received bytes has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decrypted {
    /// The TLS handshake is complete.
    pub(super) opened: bool,
    /// The peer has ended its side after these bytes.
    pub(super) ended: bool,
    /// TLS has failed; what remains to be sent is a TLS alert or a plain response.
    pub(super) failed: bool,
}

impl Link {
    /// The link to a peer whose connection was accepted by a listener, or was dialled.
    pub(super) fn new(peer: SocketAddr, listener: u16, deadline: Deadline) -> Link {
        Link {
            queue: WriteQueue::default(),
            filter: None,
            held: None,
            paused: false,
            share: Share::default(),
            failures: 0,
            eof: false,
            ending: Ending::Open,
            listed: false,
            counted_fresh: false,
            waits: false,
            deadline,
            ip: octets(peer.ip()),
            port: peer.port(),
            listener,
            starved: false,
        }
    }

    /// The number of the listener that accepted the connection.
    pub fn listener(&self) -> u16 {
        self.listener & !CHARGED
    }

    /// The client's address: the peer's, unless a trusted proxy has named another. It is the
    /// unspecified address for a peer on a Unix socket.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }

    /// Whether the connection is counted for its client's address.
    pub fn is_charged(&self) -> bool {
        self.listener & CHARGED != 0
    }

    /// Keeps what a call has found out about the client.
    pub(super) fn note_client(&mut self, cx: &Context<'_>) {
        if !self.is_charged() {
            (self.ip, self.port) = (octets(cx.peer.ip()), cx.peer.port());
            self.listener |= if cx.charged { CHARGED } else { 0 };
        }
    }

    // --- the end ---

    /// How the connection is to end.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether the connection is not to end.
    pub(super) fn is_open(&self) -> bool {
        self.ending == Ending::Open
    }

    /// Begins to end the connection, or makes the end an immediate one. Received bytes are read and
    /// discarded from now on, even if reading was paused.
    pub(super) fn end(&mut self, ending: Ending, cx: &Context<'_>) {
        if self.ending == Ending::Open {
            self.ending = ending;
            self.deadline = cx.now.plus_ms(cx.env.config.timeouts.close_ms);
        }
        if ending == Ending::Cut {
            self.ending = ending;
        }
        if self.filter.is_some() {
            self.queue.waits(cx.now.ms); // TLS has its close_notify alert to send.
        }
        self.paused = false;
        self.held = None;
    }

    /// Notes that sending has failed: the connection ends at once.
    pub fn lost(&mut self) {
        self.ending = Ending::Cut;
    }

    // --- reading and its pauses ---

    /// Whether bytes from the peer are to be read now.
    pub fn wants_read(&self) -> bool {
        // With TLS, the end of the TCP stream is still read after the peer's close_notify alert.
        (!self.paused || self.may_read_ahead()) && (!self.eof || self.filter.is_some())
    }

    /// Whether more may be read although reading is paused: the connection waits only for a later
    /// turn, and holds little input.
    fn may_read_ahead(&self) -> bool {
        self.waits && self.held_input_bytes() < READ_AHEAD
    }

    /// Holds input until reading resumes.
    pub fn hold(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.held.get_or_insert_default().hold(rest);
        }
    }

    /// Holds again the rest of the input that [`Link::resume`] returned.
    pub fn hold_again(&mut self, held: Box<HeldInput>) {
        if !held.is_taken() {
            self.held = Some(held);
        }
    }

    /// Bytes of held input.
    pub fn held_input_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes())
    }

    /// Pauses reading until [`Link::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Whether reading is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Resumes reading. Returns the held input, which must be stepped through before anything else
    /// is read, and whether the peer ended its side after that input, which the caller must report
    /// with [`super::Session::eof`].
    pub fn resume(&mut self) -> (Option<Box<HeldInput>>, bool) {
        self.paused = false;
        (self.held.take(), std::mem::take(&mut self.eof))
    }

    /// Counts one step against this connection's share of the turn.
    pub fn use_share(&mut self, at: TurnTime, bytes: usize, work: u64) {
        self.share.add(at, bytes, work);
    }

    /// Whether the connection has used its whole share of the turn.
    pub fn has_used_share(&self, at: TurnTime) -> bool {
        self.share.is_used_up(at)
    }

    /// Whether the connection has caused little work lately; see [`work::LIGHT`]. Before its first
    /// request nothing is known of it, and its TLS handshake is much work.
    pub fn is_light(&self, at: TurnTime) -> bool {
        self.share.is_light(at) && !self.counted_fresh
    }

    /// Pauses reading until [`Link::unstarve`], because the core is short of memory.
    pub fn starve(&mut self) {
        self.starved = true;
        self.paused |= self.ending == Ending::Open;
    }

    /// Whether reading is paused because the core is short of memory.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Allows reading again after [`Link::starve`].
    pub fn unstarve(&mut self) {
        self.starved = false;
    }

    // --- sending ---

    /// Whether nothing waits to be sent, and the connection does not end.
    pub fn is_done(&self) -> bool {
        self.is_open() && self.queue.is_empty() && self.filter.is_none()
    }

    /// Bytes of shared frames in the write queue.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.broadcasts()
    }

    /// Bytes in the write queue.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// The next batch of segments to send. `scratch` is working memory.
    pub fn take_batch(&mut self, scratch: &mut Vec<u8>) -> Option<Vec<Segment>> {
        match (self.ending, &self.filter) {
            (Ending::Cut, _) => None,
            (_, None) => self.queue.take_batch(),
            (_, Some(_)) => self.take_sealed(scratch),
        }
    }

    /// Notes that some bytes of the batch were sent.
    pub fn progressed(&mut self, now: Now) {
        self.queue.progressed(now.ms);
    }

    /// Notes that the batch was sent completely; `spare` is its emptied list.
    pub fn settled(&mut self, spare: Vec<Segment>, now: Now) {
        self.queue.settled(spare, now.ms);
    }

    /// Frees memory that an idle write queue does not need. Returns whether nothing waits to be
    /// sent.
    pub fn shrink(&mut self) -> bool {
        self.queue.shrink();
        self.queue.is_empty() && !self.filter.as_ref().is_some_and(|it| it.has_records())
    }

    // --- TLS ---

    /// Adds TLS to this connection.
    pub(super) fn secure(&mut self, filter: Box<Filter>) {
        self.filter = Some(filter);
    }

    /// Whether the connection uses TLS.
    pub fn is_secure(&self) -> bool {
        self.filter.is_some()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.is_handshaking())
    }

    /// Whether received bytes, and input that is held, belong to a TLS handshake and are still
    /// encrypted.
    pub fn is_sealed(&self) -> bool {
        self.is_handshaking() && self.ending == Ending::Open
    }

    /// The client's certificate, if it has shown one.
    pub(super) fn identity(&self) -> Option<Arc<PeerCertificate>> {
        self.filter.as_ref()?.identity().cloned()
    }

    /// How a WebSocket ends whose peer has ended its side. After a close_notify alert of the peer,
    /// ours is sent too.
    pub(super) fn after_eof(&self) -> Ending {
        match &self.filter {
            Some(filter) if filter.has_ended() => Ending::Flush,
            _ => Ending::Cut,
        }
    }

    /// Counts a TCP stream that ended without a close_notify alert, which may be a truncation.
    pub(super) fn note_truncation(&self, cx: &Context<'_>) {
        let cut = |filter: &Filter| !filter.is_handshaking() && !filter.has_ended();
        if self.ending == Ending::Open && self.filter.as_deref().is_some_and(cut) {
            cx.counters.tls_truncated.add(1);
        }
    }

    /// Decrypts bytes from the peer and appends the plaintext to `plain`.
    pub(super) fn decrypt(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        cx: &Context<'_>,
    ) -> Decrypted {
        let Some(filter) = &mut self.filter else { return Decrypted::default() };
        if self.ending != Ending::Open {
            return Decrypted::default();
        }
        let was_handshaking = filter.is_handshaking();
        let had_records = filter.has_records();
        let progress = filter.receive(bytes, plain);
        if filter.has_records() {
            self.queue.waits(cx.now.ms);
        }
        match was_handshaking && filter.has_records() && !had_records {
            // Our flight of the TLS handshake is ready. It contains a signature, or a signature of
            // the peer was verified before it.
            true => cx.work.charge(WorkKind::Handshake, work::HANDSHAKE),
            false => cx.work.add(work::STEP + bytes.len() as u64 / 4),
        }
        let counters = cx.counters;
        if progress.opened {
            counters.tls_handshakes.add(1);
            counters.tls_resumed.add(u64::from(filter.is_resumed()));
        }
        let found = Decrypted {
            opened: progress.opened,
            ended: progress.ended,
            failed: progress.failed.is_some(),
        };
        match progress.failed {
            None => {}
            Some(TlsFailure::Plain) => {
                counters.tls_plain.add(1);
                let text = "this port speaks TLS: use https:// or wss://\n";
                let mut answer = Vec::new();
                Response::text(400, text).connection(Connection::Close).push(&mut answer);
                filter.write_plain_alert(&answer);
                self.queue.waits(cx.now.ms);
            }
            Some(failure) => {
                counters.tls_failed.add(1);
                let event = match was_handshaking {
                    true => "BINDING_TLS_HANDSHAKE_FAILED",
                    false => "BINDING_TLS_TLS_FAILED",
                };
                tracing::debug!(event, peer = %cx.peer, ?failure, "TLS has failed");
            }
        }
        found
    }

    /// The next batch, encrypted as TLS records. The write queue counts its bytes without TLS's
    /// overhead.
    fn take_sealed(&mut self, scratch: &mut Vec<u8>) -> Option<Vec<Segment>> {
        let filter = self.filter.as_mut()?;
        if self.queue.is_sending() {
            return None;
        }
        if let Some(batch) = self.queue.take_batch()
            && !filter.seal(&batch, scratch)
        {
            // The keys are used up, or our side has already ended and these bytes are too late.
            self.queue.forget_batch();
            if self.ending == Ending::Open {
                self.ending = Ending::Cut;
                return None;
            }
        }
        if self.ending == Ending::Flush && !self.queue.has_segments() {
            filter.end();
        }
        if !filter.has_records() {
            return None;
        }
        self.queue.sends();
        Some(vec![Segment::Own(filter.take_records())])
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
