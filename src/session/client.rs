//! The client of a connection behind a proxy: who it is by the header of the PROXY protocol, and
//! whether it may connect.

use super::proxy_header::HeaderRead;
use super::{Context, Session};
use crate::config::ProxyProtocol;
use crate::stats::Counter;
use std::net::SocketAddr;

/// What follows the bytes of [`Session::read_proxy_header`].
#[derive(Debug)]
pub enum AfterHeader {
    /// All bytes were taken.
    Nothing,
    /// The payload begins after this many of the bytes.
    At(usize),
    /// The connection has no header. These are all bytes of it up to now.
    All(Vec<u8>),
}

impl Session {
    /// Whether the first bytes of this connection are given to [`Session::read_proxy_header`].
    pub fn awaits_proxy_header(&self) -> bool {
        self.stage.front().is_some_and(|front| front.awaits_header())
    }

    /// The address of who sends the requests, if that may be a proxy which forwards the requests of
    /// several clients on this connection. `None` if it is the client's.
    pub fn sender(&self) -> Option<SocketAddr> {
        self.stage.front().map(|front| front.sender)
    }

    /// Whether the client uses TLS, as far as is known without the header fields of a request.
    pub fn is_client_secure(&self) -> bool {
        self.stage.front().and_then(|front| front.secure).unwrap_or(self.link.is_secure())
    }

    /// Counts a new connection for the address of its peer. Returns false if it must be closed: the
    /// address has too many connections, or only proxies may connect and this is none.
    pub fn admit(&mut self, cx: &mut Context<'_>) -> bool {
        let listener = cx.env.listener(cx.listener);
        if listener.proxy_protocol == ProxyProtocol::Required && !listener.trusts(cx.peer.ip()) {
            self.refuse_header(&cx.counters.proxy_headers_untrusted, cx);
            return false;
        }
        let admitted = cx.admit();
        self.link.note_client(cx);
        admitted
    }

    /// Reads the first bytes of a connection, which may be a PROXY header.
    pub fn read_proxy_header(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> AfterHeader {
        let Some(front) = self.stage.front_mut() else { return AfterHeader::At(0) };
        let Some(reader) = &mut front.header else { return AfterHeader::At(0) };
        let listener = cx.env.listener(cx.listener);
        let is_trusted = listener.trusts(front.sender.ip());
        let counters = cx.counters;
        let (after, stated) = match reader.read(bytes) {
            HeaderRead::More => return AfterHeader::Nothing,
            HeaderRead::Missing(_) if listener.proxy_protocol == ProxyProtocol::Required => {
                return self.refuse_header(&counters.proxy_headers_missing, cx);
            }
            HeaderRead::Missing(all) => (AfterHeader::All(all), None),
            _ if !is_trusted => {
                return self.refuse_header(&counters.proxy_headers_untrusted, cx);
            }
            HeaderRead::Malformed => {
                return self.refuse_header(&counters.proxy_headers_malformed, cx);
            }
            HeaderRead::Whole(at, stated) => (AfterHeader::At(at), Some(stated)),
        };
        front.header = None;
        if let Some(stated) = stated {
            counters.proxy_headers.add(1);
            front.secure = stated.secure;
            front.sender = stated.address.unwrap_or(front.sender);
            (cx.sender, cx.peer) = (front.sender, front.sender);
        }
        let admitted = cx.admit();
        self.link.note_client(cx);
        if !admitted {
            self.link.lost();
            return AfterHeader::Nothing;
        }
        after
    }

    /// Notes that the connection has ended, or its time is over, before its PROXY header was whole.
    pub(super) fn note_torn_header(&self, cx: &Context<'_>) {
        if self.stage.front().is_some_and(|front| front.held_bytes() > 0) {
            cx.counters.proxy_headers_torn.add(1);
        }
    }

    fn refuse_header(&mut self, counter: &Counter, cx: &Context<'_>) -> AfterHeader {
        counter.add(1);
        tracing::debug!(peer = %cx.peer, "closed because of its PROXY header, or for want of one");
        self.link.lost();
        AfterHeader::Nothing
    }
}
