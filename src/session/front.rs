//! What a connection knows of a proxy in front of the server, and who the client of a request is.

use super::Context;
use super::proxy_header::HeaderReader;
use crate::config::{ForwardedHeaders, Listener, ProxyProtocol};
use crate::gateway::forwarded::{self, MalformedForwarding};
use crate::http::Request;
use std::net::SocketAddr;

/// What a connection knows of the proxy in front, until its HTTP stage ends.
pub(super) struct Front {
    /// Who sends the requests: the peer of the connection itself, or the client that a PROXY header
    /// has named.
    pub(super) sender: SocketAddr,
    /// Whether the client uses TLS to the proxy, if a PROXY header has said it.
    pub(super) secure: Option<bool>,
    /// The reader of the PROXY header that may come first.
    pub(super) header: Option<HeaderReader>,
}

impl Front {
    /// What has to be known of a connection from `peer`; `None` if nothing that it says about its
    /// client is read.
    pub(super) fn of(peer: SocketAddr, listener: &Listener) -> Option<Front> {
        let reads_header = listener.proxy_protocol != ProxyProtocol::Off;
        let reads_fields =
            listener.forwarded != ForwardedHeaders::Off && listener.trusts(peer.ip());
        let header = reads_header.then(HeaderReader::default);
        (reads_header || reads_fields).then_some(Front { sender: peer, secure: None, header })
    }

    /// Whether the first bytes of the connection are read as a PROXY header.
    pub(super) fn awaits_header(&self) -> bool {
        self.header.is_some()
    }

    /// Heap bytes of an unfinished PROXY header.
    pub(super) fn held_bytes(&self) -> usize {
        self.header.as_ref().map_or(0, HeaderReader::held_bytes)
    }
}

impl Context<'_> {
    /// Finds the client of a request by its header fields, if they are to be believed. This is the
    /// client of the connection from here on.
    ///
    /// # Errors
    /// A trusted proxy has sent a field that cannot be read.
    pub(super) fn identify(&mut self, request: &Request<'_>) -> Result<(), MalformedForwarding> {
        let listener = self.env.listener(self.listener);
        if !self.charged {
            // Not the client of an earlier request.
            self.peer = self.sender;
        }
        if listener.forwarded == ForwardedHeaders::Off {
            return Ok(());
        }
        if !listener.trusts(self.sender.ip()) {
            let has_any = forwarded::is_present(listener, request);
            self.counters.forwarded_untrusted.add(has_any.into());
            return Ok(());
        }
        let found = forwarded::client(listener, request).inspect_err(|_| {
            self.counters.forwarded_malformed.add(1);
        })?;
        self.peer = found.address.unwrap_or(self.sender);
        self.secure = found.secure.unwrap_or(self.secure);
        Ok(())
    }

    /// Counts the connection for the client's address, unless that was done before. Trusted proxies
    /// and peers on a Unix socket are not counted. Returns false if the address has too many
    /// connections.
    pub(super) fn admit(&mut self) -> bool {
        let ip = self.peer.ip();
        if self.charged || ip.is_unspecified() || self.env.listener(self.listener).trusts(ip) {
            return true;
        }
        self.charged = self.env.runtime.addresses.enter(ip);
        self.counters.refused_address.add((!self.charged).into());
        self.charged
    }
}
