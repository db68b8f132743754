//! A client on a proxy route that waits for an upstream. The upstream's 101 response makes it into
//! one leg of a proxied connection.

use super::endpoint::Endpoint;
use super::policy::ConnectionPolicy;
use super::proxy::ProxyLeg;
use super::records::{Input, Records};
use super::upgrade;
use super::websocket::WebSocket;
use crate::dialect::{Effect, PeerMessage};
use crate::gateway::proxy::{Origination, UpgradeQuery, UpstreamHandshake};
use crate::http::{Connection, Request, Response};
use crate::mem::Slot;
use crate::runtime::Upstreams;
use crate::session::ending::{Ending, Progress};
use crate::session::{Context, Dial, SessionEvent};
use crate::time::{Deadline, Now};
use crate::upstream::{Chosen, Tried, UpstreamFailure};
use crate::ws::Role;
use crate::ws::event_ids::EventIds;
use crate::ws::output::{Channel, Codecs};
use crate::ws::record::RecordFraming;
use std::sync::Arc;

const TOO_LATE: &str = "no upstream has answered in time";
const SHUTTING_DOWN: &str = "the server is shutting down";

/// A client whose request was accepted and is not answered yet. What it sends meanwhile waits.
pub(crate) struct PendingUpstream {
    upstreams: Arc<Upstreams>,
    upgrade_query: UpgradeQuery,
    upgrade: UpstreamRequest,
    /// The upstreams that were tried, and the one that is being tried.
    tried: Tried,
    chosen: Option<Chosen>,
    /// The dial that was requested, until it has a slot.
    dial: Option<Box<Dial>>,
    /// The connection that is being tried, once it has a slot.
    dialled: Option<Slot>,
}

/// What is needed to answer the client when an upstream has opened a WebSocket.
pub(super) struct UpstreamRequest {
    /// The head of the response, up to the fields that depend on the upstream.
    pub(super) head: Vec<u8>,
    /// The reader of the request body, if the client has an HTTP stream in place of a WebSocket.
    pub(super) records: Option<Box<Records>>,
    pub(super) channel: Option<Box<Channel>>,
    pub(super) policy: Option<Box<ConnectionPolicy>>,
}

impl PendingUpstream {
    /// Begins to wait for an upstream, and requests the first dial.
    ///
    /// # Errors
    /// The status and the text of the response, if no upstream can be dialled.
    pub(super) fn begin(
        upstreams: &Arc<Upstreams>,
        request: &Request<'_>,
        upgrade: UpstreamRequest,
        cx: &mut Context<'_>,
    ) -> Result<Box<PendingUpstream>, (u16, &'static str)> {
        let guards = &cx.env.config.guards;
        let proxy = &upstreams.proxy;
        let from = Origination { client: cx.peer.ip(), sender: cx.sender.ip(), secure: cx.secure };
        let upgrade_query = UpgradeQuery::new(proxy, guards, request, from);
        let upstreams = upstreams.clone();
        let mut waiting = PendingUpstream {
            upstreams,
            upgrade_query,
            upgrade,
            tried: Tried::default(),
            chosen: None,
            dial: None,
            dialled: None,
        };
        if !cx.draining && waiting.request_dial(cx) {
            return Ok(Box::new(waiting));
        }
        waiting.drop_state(cx.codecs);
        let cause = UpstreamFailure::Unreachable;
        let refusal = (cause.status(), cause.text());
        Err(if cx.draining { (503, SHUTTING_DOWN) } else { refusal })
    }

    /// Requests the next dial: to another address of the chosen upstream, or to another upstream.
    /// Returns false if none is left.
    fn request_dial(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_new = false;
        loop {
            let Some(chosen) = &mut self.chosen else {
                self.chosen = self.upstreams.pool.pick(cx.now.ms, &mut self.tried);
                if self.chosen.is_none() {
                    return false;
                }
                is_new = true;
                continue;
            };
            let upstream = self.upstreams.proxy.upstreams.get(chosen.number());
            let found = upstream.map(|it| (it, chosen.next_address()));
            if let Some((upstream, Some(address))) = found {
                let filter = self.upstreams.connect(upstream);
                if upstream.secure == filter.is_some() {
                    let nonce = cx.keys.nonce();
                    let (handshake, request) = UpstreamHandshake::new(
                        &self.upstreams.proxy,
                        upstream,
                        &self.upgrade_query,
                        nonce,
                    );
                    let dial = Dial {
                        address,
                        client: cx.conn.slot,
                        deadline: cx.now.plus_ms(self.upstreams.proxy.connect_ms),
                        filter,
                        handshake,
                        request,
                        handshake_ms: self.upstreams.proxy.handshake_ms,
                        buffer_bytes: self.upstreams.proxy.buffer_bytes,
                    };
                    self.dial = Some(Box::new(dial));
                    cx.request(Effect::Dial);
                    return true;
                }
            }
            // All its addresses were tried, or its name was not resolved.
            cx.counters.proxy_unresolved.add(is_new.into());
            self.put_back(true, cx);
        }
    }

    /// Takes the dial that was requested and has no slot yet.
    pub(super) fn take_dial(&mut self) -> Option<Box<Dial>> {
        self.dial.take()
    }

    /// Handles an event of the connection.
    ///
    /// # Errors
    /// The proxy leg that the connection becomes, because an upstream has opened a WebSocket.
    pub(super) fn on(
        &mut self,
        event: SessionEvent<'_>,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<Progress, Box<WebSocket>> {
        match event {
            SessionEvent::DialledAt(slot) => {
                self.dialled = Some(slot);
                Ok(Progress::Need)
            }
            SessionEvent::Peer(PeerMessage::Answered(Ok(protocol))) => {
                self.linked(protocol, out, cx).map_or(Ok(Progress::Need), |leg| Err(Box::new(leg)))
            }
            SessionEvent::Peer(PeerMessage::Answered(Err(cause))) => {
                Ok(self.unlinked(&cause, out, cx))
            }
            SessionEvent::CloseFor(_) => Ok(self.refuse(503, SHUTTING_DOWN, &[], out, cx)),
            SessionEvent::OutOfMemory => Ok(Progress::End(Ending::Cut)),
            _ => Ok(Progress::Need),
        }
    }

    /// Gives the chosen upstream up, and counts it as failed if `fault` is set.
    fn put_back(&mut self, fault: bool, cx: &Context<'_>) {
        if let Some(chosen) = self.chosen.take()
            && fault
            && chosen.failed(cx.now.ms)
        {
            cx.counters.proxy_aside.add(1);
        }
    }

    /// The message that ends the dialled connection when the client's has ended.
    pub(super) fn last_message(&mut self) -> Option<(Slot, PeerMessage)> {
        let message = PeerMessage::Close { code: None, reason: "".into() };
        Some((self.dialled.take()?, message))
    }

    pub(super) fn drop_state(&mut self, codecs: &mut Codecs) {
        if let Some(channel) = &mut self.upgrade.channel {
            channel.release(codecs);
        }
    }

    /// The deadline for all attempts. Each upstream has its own timeouts; all attempts together
    /// have twice those of one.
    pub(super) fn deadline(&self, now: Now) -> Deadline {
        now.plus_ms(2 * (self.upstreams.proxy.connect_ms + self.upstreams.proxy.handshake_ms))
    }

    /// Answers the client after the upstream has opened a WebSocket with this subprotocol, and
    /// returns the proxy leg that the connection becomes. Returns `None` if nothing was dialled.
    fn linked(
        &mut self,
        protocol: Option<Box<str>>,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Option<WebSocket> {
        let other = self.dialled.take()?;
        let UpstreamRequest { head, records, channel, policy } = &mut self.upgrade;
        let (records, channel, policy) = (records.take(), channel.take(), policy.take());
        out.extend_from_slice(head);
        let input = match records {
            Some(records) => {
                upgrade::finish(out, protocol.as_deref(), None);
                let framing = channel.as_ref().and_then(|channel| channel.records());
                begin_stream(framing, None, out, cx);
                Input::Records(records)
            }
            None => {
                let extensions = channel.as_ref().map(|channel| channel.agreed().answer());
                upgrade::finish(out, protocol.as_deref(), extensions.as_deref());
                cx.counters.upgrades.add(1);
                Input::FRAMES
            }
        };
        let mut leg =
            ProxyLeg::new(Role::Server, other, self.upstreams.proxy.buffer_bytes, cx.keys);
        leg.chosen = self.chosen.take();
        leg.chosen.iter().for_each(Chosen::worked);
        let endpoint = Endpoint::ProxyLeg(Box::new(leg));
        Some(WebSocket::new(input, endpoint, channel, policy, cx.now.ms))
    }

    /// Handles a failed attempt: dials the next address or upstream, or refuses the client.
    fn unlinked(
        &mut self,
        cause: &UpstreamFailure,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        let counters = cx.counters;
        let counter = match cause {
            UpstreamFailure::NoSlot => &counters.proxy_no_slot,
            UpstreamFailure::Unreachable => &counters.proxy_unreachable,
            UpstreamFailure::Late { .. } => &counters.proxy_timed_out,
            UpstreamFailure::Refused(..) => &counters.proxy_refused,
            UpstreamFailure::InvalidReply(_) => &counters.proxy_bad_answers,
        };
        counter.add(1);
        tracing::debug!(?cause, "an upstream has not opened a WebSocket");
        self.dialled = None;
        if !cause.is_of_the_address() {
            self.put_back(cause.is_fault(), cx);
        }
        if cause.may_be_tried_elsewhere() && !cx.draining && self.request_dial(cx) {
            return Progress::Again;
        }
        let fields: &[(&str, &str)] = match cause {
            UpstreamFailure::Refused(401, Some(challenge)) => &[("WWW-Authenticate", challenge)],
            _ => &[],
        };
        self.refuse(cause.status(), cause.text(), fields, out, cx)
    }

    /// Refuses the client because all attempts together took too long.
    pub(super) fn on_deadline(&self, out: &mut Vec<u8>, cx: &Context<'_>) -> Progress {
        self.refuse(504, TOO_LATE, &[], out, cx)
    }

    fn refuse(
        &self,
        status: u16,
        text: &str,
        fields: &[(&str, &str)],
        out: &mut Vec<u8>,
        cx: &Context<'_>,
    ) -> Progress {
        cx.counters.http_requests.add(self.upgrade.records.is_some().into());
        let text = format!("{text}\n");
        let response = Response::text(status, &text).headers(fields);
        response.connection(Connection::Close).push(out);
        cx.counters.http_errors.add(1);
        Progress::End(Ending::Flush)
    }
}

/// Writes what comes before the first record of an HTTP stream, and counts the stream. `id` is what
/// the client of a stream of events has sent as the id of the last event that it has received.
pub(super) fn begin_stream(
    framing: Option<RecordFraming>,
    id: Option<&str>,
    out: &mut Vec<u8>,
    cx: &Context<'_>,
) {
    cx.counters.http_requests.add(1);
    cx.counters.http_streams.add(1);
    if let Some(framing) = framing {
        framing.push_start(out, id.filter(|id| EventIds::is_id(id)));
        cx.counters.event_streams.add((framing == RecordFraming::Events).into());
    }
}
