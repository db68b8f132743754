//! A proxied WebSocket before it is open: a client that waits for its response, and a connection to
//! an upstream whose handshake is not answered. The upstream's 101 response makes both into proxy
//! legs.

use super::proxy::{MaskKeys, PeerMessage, ProxyEffect, ProxyLeg};
use super::socket::{ConnectionPolicy, Endpoint, Socket};
use super::stream::{self, Input, Records};
use super::{Context, Ending, SHUTTING_DOWN, Session, Stage, StageResult, WriteQueue, upgrade};
use crate::config::{Proxy, Upstream};
use crate::dialect::Env;
use crate::gateway::proxy::{HandshakeOutcome, UpgradeQuery, UpstreamFailure, UpstreamHandshake};
use crate::http::{Connection, Request, Response};
use crate::mem::Slot;
use crate::time::{Deadline, Now};
use crate::tls::Filter;
use crate::upstream::{Chosen, Tried};
use crate::ws::Role;
use crate::ws::output::{Channel, Codecs};
use std::net::SocketAddr;
use std::sync::Arc;

/// A client whose request was accepted and is not answered yet. What it sends meanwhile waits.
pub(super) struct PendingUpstream {
    pub(super) proxy: Arc<Proxy>,
    upgrade_query: UpgradeQuery,
    upgrade: UpstreamRequest,
    /// The upstreams that were tried, and the one that is being tried.
    tried: Tried,
    chosen: Option<Chosen>,
    /// The connection that is being tried, once it has a slot.
    pub(super) dialled: Option<Slot>,
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

/// A connection to an upstream that is to be dialled.
pub struct Dial {
    /// The upstream's address.
    pub address: SocketAddr,
    /// The client that the connection is for.
    pub client: Slot,
    deadline: Deadline,
    /// TLS, if the upstream uses it.
    filter: Option<Filter>,
    stage: Box<Dialling>,
}

/// A connection to an upstream until the handshake is answered.
pub(super) struct Dialling {
    client: Slot,
    handshake: UpstreamHandshake,
    /// The handshake request, until it is queued.
    request: Vec<u8>,
    /// The part of the response head that was received.
    answer: Vec<u8>,
    handshake_ms: u64,
    buffer_bytes: usize,
    cause: UpstreamFailure,
    connected: bool,
    outcome_reported: bool,
}

impl Dialling {
    pub(super) fn held_bytes(&self) -> usize {
        self.request.capacity() + self.answer.capacity()
    }
}

impl PendingUpstream {
    /// Begins to wait for an upstream, and requests the first dial.
    ///
    /// # Errors
    /// The status and the text of the response, if no upstream can be dialled.
    pub(super) fn begin(
        proxy: &Arc<Proxy>,
        request: &Request<'_>,
        upgrade: UpstreamRequest,
        cx: &mut Context<'_>,
    ) -> Result<StageResult, (u16, &'static str)> {
        let guards = &cx.env.config.guards;
        let upgrade_query = UpgradeQuery::new(proxy, guards, request, cx.peer.ip(), cx.secure);
        let proxy = proxy.clone();
        let (tried, chosen, dialled) = (Tried::default(), None, None);
        let mut waiting = PendingUpstream { proxy, upgrade_query, upgrade, tried, chosen, dialled };
        if !cx.draining && waiting.dial(cx) {
            return Ok(StageResult::Connecting(Box::new(waiting)));
        }
        waiting.drop_state(cx.codecs);
        let cause = UpstreamFailure::Unreachable;
        let refusal = (cause.status(), cause.text());
        Err(if cx.draining { (503, SHUTTING_DOWN) } else { refusal })
    }

    /// Requests the next dial: to another address of the chosen upstream, or to another upstream.
    /// Returns false if none is left.
    fn dial(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_new = false;
        loop {
            let Some(chosen) = &mut self.chosen else {
                self.chosen = self.proxy.pool.pick(cx.now.ms, &mut self.tried);
                if self.chosen.is_none() {
                    return false;
                }
                is_new = true;
                continue;
            };
            let upstream = self.proxy.upstreams.get(chosen.number());
            let found = upstream.map(|it| (it, chosen.next_address()));
            if let Some((upstream, Some(address))) = found {
                let filter = self.proxy.tls.connect(upstream);
                if upstream.secure == filter.is_some() {
                    let (client, keys) = (cx.conn.slot, &mut *cx.keys);
                    let stage =
                        Dialling::new(&self.proxy, upstream, &self.upgrade_query, client, keys);
                    let deadline = cx.now.plus_ms(self.proxy.connect_ms);
                    let dial = Dial { address, client, deadline, filter, stage: Box::new(stage) };
                    cx.proxy_effects.push(ProxyEffect::Dial(Box::new(dial)));
                    return true;
                }
            }
            // All its addresses were tried, or its name was not resolved.
            cx.counters.proxy_unresolved.add(is_new.into());
            self.put_back(true, cx);
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
}

impl Dialling {
    fn new(
        proxy: &Proxy,
        upstream: &Upstream,
        upgrade_query: &UpgradeQuery,
        client: Slot,
        keys: &mut MaskKeys,
    ) -> Dialling {
        let (handshake, request) =
            UpstreamHandshake::new(proxy, upstream, upgrade_query, keys.nonce());
        Dialling {
            client,
            handshake,
            request,
            answer: Vec::new(),
            handshake_ms: proxy.handshake_ms,
            buffer_bytes: proxy.buffer_bytes,
            cause: UpstreamFailure::Unreachable,
            connected: false,
            outcome_reported: false,
        }
    }

    /// Queues the handshake request for the upstream.
    pub(super) fn send_request(&mut self, queue: &mut WriteQueue, now: Now) {
        queue.close_tail(std::mem::take(&mut self.request), now.ms);
    }

    /// Reads the upstream's response to the handshake.
    pub(super) fn step(&mut self, input: &[u8], cx: &mut Context<'_>) -> (usize, StageResult) {
        let (had, max) = (self.answer.len(), cx.env.config.limits.http_head_bytes);
        let part = &input[..input.len().min(max.saturating_sub(had))];
        self.answer.extend_from_slice(part);
        // The blank line may have begun in the bytes received before.
        let from = had.saturating_sub(END.len() - 1);
        let end = self.answer[from..].windows(END.len()).position(|window| window == END);
        let Some(end) = end.map(|at| from + at + END.len()) else {
            if self.answer.len() >= max {
                return (
                    input.len(),
                    self.failed(UpstreamFailure::InvalidReply(
                        "the head of the response is too long",
                    )),
                );
            }
            return (input.len(), StageResult::Need);
        };
        let outcome = self.handshake.judge(&self.answer[..end]);
        let after = match outcome {
            HandshakeOutcome::Interim => StageResult::Again,
            HandshakeOutcome::Failed(cause) => self.failed(cause),
            HandshakeOutcome::Open(protocol) => {
                self.outcome_reported = true;
                let (to, message) = (self.client, PeerMessage::Answered(Ok(protocol)));
                cx.proxy_effects.push(ProxyEffect::Send { to, message });
                let leg = ProxyLeg::new(Role::Client, to, self.buffer_bytes, cx.keys);
                let endpoint = Endpoint::ProxyLeg(Box::new(leg));
                let input = Input::FRAMES;
                StageResult::Upgraded(Box::new(Socket::new(input, endpoint, None, None, cx.now.ms)))
            }
        };
        self.answer = Vec::new();
        (end - had, after)
    }

    /// Ends the connection for this reason, which [`Dialling::last_message`] reports to the client.
    fn failed(&mut self, cause: UpstreamFailure) -> StageResult {
        self.cause = cause;
        StageResult::End(Ending::Cut)
    }

    /// Handles a deadline that is due.
    pub(super) fn on_deadline(&mut self) -> StageResult {
        self.failed(UpstreamFailure::Late { connected: self.connected })
    }

    /// Notes that the upstream has ended its side.
    pub(super) fn ended(&mut self) {
        self.cause = UpstreamFailure::InvalidReply("the upstream has ended the connection");
    }

    /// The message that reports the failure to the client, unless the outcome was reported already.
    pub(super) fn last_message(&mut self) -> Option<(Slot, PeerMessage)> {
        let first = !std::mem::replace(&mut self.outcome_reported, true);
        first.then(|| (self.client, PeerMessage::Answered(Err(self.cause.clone()))))
    }
}

impl Session {
    /// Creates the session of a dial whose connection is not established yet.
    pub fn dialled(dial: Dial, now: Now, env: &Env) -> Session {
        let mut session = Session::new(dial.address, 0, now, env);
        session.stage = Stage::Dialling(dial.stage);
        session.deadline = dial.deadline;
        session.filter = dial.filter.map(Box::new);
        session
    }

    /// Notes that the connection is established. The handshake request is queued, or TLS begins
    /// first.
    pub fn connected(&mut self, cx: &mut Context<'_>) {
        let Stage::Dialling(dialling) = &mut self.stage else { return };
        dialling.connected = true;
        self.deadline = cx.now.plus_ms(dialling.handshake_ms);
        match &self.filter {
            Some(_) => self.queue.waits(cx.now.ms),
            None => dialling.send_request(&mut self.queue, cx.now),
        }
    }

    /// Notes that TLS with an upstream has failed.
    pub(super) fn note_no_tls(&mut self) {
        if let Stage::Dialling(dialling) = &mut self.stage {
            dialling.cause = UpstreamFailure::InvalidReply("TLS with the upstream has failed");
        }
    }

    /// Whether this client waits for a dial that has no slot yet.
    pub fn waits_for_dial(&self) -> bool {
        matches!(&self.stage, Stage::Connecting(waiting) if waiting.dialled.is_none())
            && self.ending == Ending::Open
    }

    /// Notes that the connection which is being dialled for this client has slot `slot`.
    pub fn dials(&mut self, slot: Slot) {
        if let Stage::Connecting(waiting) = &mut self.stage {
            waiting.dialled = Some(slot);
        }
    }

    /// Answers the client after the upstream has opened a WebSocket with this subprotocol, and
    /// makes the session a proxy leg.
    pub(super) fn linked(&mut self, protocol: Option<Box<str>>, cx: &mut Context<'_>) {
        let Stage::Connecting(waiting) = &mut self.stage else { return };
        let Some(other) = waiting.dialled.take() else { return };
        let UpstreamRequest { head, records, channel, policy } = &mut waiting.upgrade;
        let (records, channel, policy) = (records.take(), channel.take(), policy.take());
        let mut out = self.queue.open_tail();
        out.extend_from_slice(head);
        let input = match records {
            Some(records) => {
                upgrade::finish(&mut out, protocol.as_deref(), None);
                stream::count(cx);
                Input::Records(records)
            }
            None => {
                let extensions = channel.as_ref().map(|channel| channel.agreed().answer());
                upgrade::finish(&mut out, protocol.as_deref(), extensions.as_deref());
                cx.counters.upgrades.add(1);
                Input::FRAMES
            }
        };
        self.queue.close_tail(out, cx.now.ms);
        let mut leg = ProxyLeg::new(Role::Server, other, waiting.proxy.buffer_bytes, cx.keys);
        leg.chosen = waiting.chosen.take();
        leg.chosen.iter().for_each(Chosen::worked);
        let endpoint = Endpoint::ProxyLeg(Box::new(leg));
        let socket = Socket::new(input, endpoint, channel, policy, cx.now.ms);
        self.upgraded(socket, cx);
    }

    /// Handles a failed attempt: dials the next address or upstream, or refuses the client.
    pub(super) fn unlinked(&mut self, cause: &UpstreamFailure, cx: &mut Context<'_>) {
        if self.ending != Ending::Open {
            return; // The client was answered before; the upstream has not failed.
        }
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
        let Stage::Connecting(waiting) = &mut self.stage else { return };
        waiting.dialled = None;
        if !cause.is_of_the_address() {
            waiting.put_back(cause.is_fault(), cx);
        }
        if cause.may_be_tried_elsewhere() && !cx.draining && waiting.dial(cx) {
            return;
        }
        let fields: &[(&str, &str)] = match cause {
            UpstreamFailure::Refused(401, Some(challenge)) => &[("WWW-Authenticate", challenge)],
            _ => &[],
        };
        self.refuse(cause.status(), cause.text(), fields, cx);
    }

    /// Refuses a client that waits for an upstream, and ends its connection.
    pub(super) fn refuse(
        &mut self,
        status: u16,
        text: &str,
        fields: &[(&str, &str)],
        cx: &mut Context<'_>,
    ) {
        if let Stage::Connecting(waiting) = &self.stage {
            cx.counters.http_requests.add(waiting.upgrade.records.is_some().into());
        }
        let mut out = self.queue.open_tail();
        let text = format!("{text}\n");
        let response = Response::text(status, &text).headers(fields);
        response.connection(Connection::Close).push(&mut out);
        cx.counters.http_errors.add(1);
        self.queue.close_tail(out, cx.now.ms);
        self.end(Ending::Flush, cx);
    }
}

/// The end of a response head.
const END: &[u8] = b"\r\n\r\n";
