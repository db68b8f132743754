//! TLS of one connection: received bytes are decrypted before they are stepped through, and a batch
//! is encrypted when it is taken for sending.

use super::{Context, Ending, Session, Stage};
use crate::http::{Connection, Response};
use crate::mem::Segment;
use crate::tls::{Filter, PeerCertificate, TlsFailure};
use crate::work::{self, WorkKind};
use std::sync::Arc;

impl Session {
    /// Adds TLS to this connection, which was just accepted. The deadline of the TLS handshake is
    /// `handshake_ms` milliseconds from now.
    pub fn secure(&mut self, filter: Filter, cx: &Context<'_>) {
        self.filter = Some(Box::new(filter));
        self.deadline = cx.now.plus_ms(cx.env.config.timeouts.handshake_ms);
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

    /// The client's certificate, if it has shown one and the connection is in its HTTP stage.
    pub fn identity(&self) -> Option<Arc<PeerCertificate>> {
        match &self.stage {
            Stage::Http(_) => self.filter.as_ref()?.identity().cloned(),
            _ => None,
        }
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

    /// Decrypts bytes from the peer and appends the plaintext to `plain`. Returns true if the peer
    /// has ended its side after it.
    pub fn decrypt(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, cx: &mut Context<'_>) -> bool {
        let Some(filter) = &mut self.filter else { return false };
        if self.ending != Ending::Open {
            return false;
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
            match &mut self.stage {
                Stage::Dialling(it) => it.send_request(&mut self.queue, cx.now),
                // The timeout of the first request runs from here.
                _ => self.deadline = cx.now.plus_ms(cx.env.config.timeouts.head_ms),
            }
        }
        match progress.failed {
            None => return progress.ended,
            Some(TlsFailure::Plain) => {
                counters.tls_plain.add(1);
                let text = "this port requires TLS: use https:// or wss://\n";
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
        self.note_no_tls();
        self.end(Ending::Flush, cx);
        false
    }

    /// The next batch, encrypted as TLS records. The write queue counts its bytes without TLS's
    /// overhead.
    pub(super) fn take_sealed(&mut self, scratch: &mut Vec<u8>) -> Option<Vec<Segment>> {
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
