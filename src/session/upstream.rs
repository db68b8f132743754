//! On the way to a proxied WebSocket: a client that waits for its answer, and a connection to an
//! upstream on which there is no WebSocket yet. The upstream's 101 makes both of them halves.

use super::half::{Errand, Half, Keys, Word};
use super::socket::{Endpoint, Socket, Terms};
use super::stream::{self, Input, Records};
use super::{After, Ending, Queue, SHUTTING_DOWN, Session, Stage, Surroundings, upgrade};
use crate::config::{Proxy, Upstream};
use crate::dialect::Env;
use crate::gateway::proxy::{Asked, Cause, Handshake, Outcome};
use crate::http::{Connection, Request, Response};
use crate::mem::Slot;
use crate::time::{Deadline, Now};
use crate::tls::Filter;
use crate::upstream::{Chosen, Tried};
use crate::ws::output::{Channel, Codecs};
use crate::ws::{self, Role};
use std::net::SocketAddr;
use std::sync::Arc;

/// A client whose request was accepted and is not answered yet. What it sends meanwhile waits.
pub(super) struct Waiting {
    pub(super) proxy: Arc<Proxy>,
    asked: Asked,
    wish: Wish,
    /// The upstreams that have been tried, and which is.
    tried: Tried,
    chosen: Option<Chosen>,
    /// The connection that is tried, once it has a place.
    pub(super) dialled: Option<Slot>,
}

/// What a client gets when an upstream has opened a WebSocket.
pub(super) struct Wish {
    /// The head of the answer, up to what the upstream has a say in.
    pub(super) head: Vec<u8>,
    /// What it sends, if that is a stream in the place of a WebSocket.
    pub(super) records: Option<Box<Records>>,
    pub(super) channel: Option<Box<Channel>>,
    pub(super) terms: Option<Box<Terms>>,
}

/// A connection that is to be made.
pub struct Dial {
    /// Where to.
    pub address: SocketAddr,
    /// The client that it is for.
    pub client: Slot,
    deadline: Deadline,
    /// TLS, if the upstream speaks it.
    filter: Option<Filter>,
    stage: Box<Dialling>,
}

/// A connection to an upstream until its answer.
pub(super) struct Dialling {
    client: Slot,
    handshake: Handshake,
    /// What is asked, until the connection is made.
    request: Vec<u8>,
    /// The answer so far.
    answer: Vec<u8>,
    handshake_ms: u64,
    buffer_bytes: usize,
    cause: Cause,
    connected: bool,
    told: bool,
}

impl Waiting {
    /// Begins to wait, and asks for the first dial.
    ///
    /// # Errors
    /// Status and text of the answer, if there is nothing to wait for.
    pub(super) fn begin(
        proxy: &Arc<Proxy>,
        request: &Request<'_>,
        wish: Wish,
        around: &mut Surroundings<'_>,
    ) -> Result<After, (u16, &'static str)> {
        let guards = &around.env.config.guards;
        let asked = Asked::new(proxy, guards, request, around.peer.ip(), around.secure);
        let proxy = proxy.clone();
        let (tried, chosen, dialled) = (Tried::default(), None, None);
        let mut waiting = Waiting { proxy, asked, wish, tried, chosen, dialled };
        if !around.draining && waiting.dial(around) {
            return Ok(After::Waits(Box::new(waiting)));
        }
        waiting.gone(around.codecs);
        let cause = Cause::Unreachable;
        let refusal = (cause.status(), cause.text());
        Err(if around.draining { (503, SHUTTING_DOWN) } else { refusal })
    }

    /// Asks for the next dial: to another address of the upstream that was chosen, or to another
    /// upstream. False if none is left to be tried.
    fn dial(&mut self, around: &mut Surroundings<'_>) -> bool {
        let mut is_new = false;
        loop {
            let Some(chosen) = &mut self.chosen else {
                self.chosen = self.proxy.pool.pick(around.now.ms, &mut self.tried);
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
                    let (client, keys) = (around.conn.slot, &mut *around.keys);
                    let stage = Dialling::new(&self.proxy, upstream, &self.asked, client, keys);
                    let deadline = around.now.plus_ms(self.proxy.connect_ms);
                    let dial = Dial { address, client, deadline, filter, stage: Box::new(stage) };
                    around.errands.push(Errand::Dial(Box::new(dial)));
                    return true;
                }
            }
            // Its addresses have all been tried; or its name is not resolved.
            around.counters.proxy_unresolved.add(is_new.into());
            self.put_back(true, around);
        }
    }

    /// The upstream that was chosen is not taken, by its own `fault` or not.
    fn put_back(&mut self, fault: bool, around: &Surroundings<'_>) {
        if let Some(chosen) = self.chosen.take()
            && fault
            && chosen.failed(around.now.ms)
        {
            around.counters.proxy_aside.add(1);
        }
    }

    /// The client has ended: so does what was dialled for it.
    pub(super) fn last_word(&mut self) -> Option<(Slot, Word)> {
        let word = Word::Close { code: None, reason: "".into() };
        Some((self.dialled.take()?, word))
    }

    pub(super) fn gone(&mut self, codecs: &mut Codecs) {
        if let Some(channel) = &mut self.wish.channel {
            channel.release(codecs);
        }
    }
}

impl Dialling {
    fn new(
        proxy: &Proxy,
        upstream: &Upstream,
        asked: &Asked,
        client: Slot,
        keys: &mut Keys,
    ) -> Dialling {
        let (handshake, request) = Handshake::new(proxy, upstream, asked, keys.nonce());
        Dialling {
            client,
            handshake,
            request,
            answer: Vec::new(),
            handshake_ms: proxy.handshake_ms,
            buffer_bytes: proxy.buffer_bytes,
            cause: Cause::Unreachable,
            connected: false,
            told: false,
        }
    }

    /// Asks the upstream for a WebSocket.
    pub(super) fn ask(&mut self, queue: &mut Queue, now: Now) {
        queue.close_tail(std::mem::take(&mut self.request), now.ms);
    }

    /// Takes the upstream's answer.
    pub(super) fn step(&mut self, input: &[u8], around: &mut Surroundings<'_>) -> (usize, After) {
        let (had, most) = (self.answer.len(), around.env.config.limits.http_head_bytes);
        let part = &input[..input.len().min(most.saturating_sub(had))];
        self.answer.extend_from_slice(part);
        // The blank line may have begun in what came before.
        let from = had.saturating_sub(END.len() - 1);
        let end = self.answer[from..].windows(END.len()).position(|window| window == END);
        let Some(end) = end.map(|at| from + at + END.len()) else {
            if self.answer.len() >= most {
                return (input.len(), self.failed(Cause::Nonsense("its head is too long")));
            }
            return (input.len(), After::Need);
        };
        let outcome = self.handshake.judge(&self.answer[..end]);
        let after = match outcome {
            Outcome::Interim => After::Again,
            Outcome::Failed(cause) => self.failed(cause),
            Outcome::Open(protocol) => {
                self.told = true;
                let (to, word) = (self.client, Word::Answered(Ok(protocol)));
                around.errands.push(Errand::Say { to, word });
                let half = Half::new(Role::Client, to, self.buffer_bytes, around.keys);
                let endpoint = Endpoint::Half(Box::new(half));
                let input = Input::Answers(ws::Reader::new());
                After::Upgraded(Box::new(Socket::new(input, endpoint, None, None, around.now.ms)))
            }
        };
        self.answer = Vec::new();
        (end - had, after)
    }

    /// Ends for this reason, of which [`Dialling::last_word`] tells.
    fn failed(&mut self, cause: Cause) -> After {
        self.cause = cause;
        After::End(Ending::Cut)
    }

    /// The deadline has come.
    pub(super) fn late(&mut self) -> After {
        self.failed(Cause::Late { connected: self.connected })
    }

    /// The upstream has ended its side.
    pub(super) fn ended(&mut self) {
        self.cause = Cause::Nonsense("it has ended the connection");
    }

    /// There is no WebSocket: the client is told why.
    pub(super) fn last_word(&mut self) -> Option<(Slot, Word)> {
        let first = !std::mem::replace(&mut self.told, true);
        first.then(|| (self.client, Word::Answered(Err(self.cause.clone()))))
    }
}

impl Session {
    /// The connection of `dial`, which is not made yet.
    pub fn dialled(dial: Dial, now: Now, env: &Env) -> Session {
        let mut session = Session::new(dial.address, 0, now, env);
        session.stage = Stage::Dialling(dial.stage);
        session.deadline = dial.deadline;
        session.filter = dial.filter.map(Box::new);
        session
    }

    /// The connection is made. The upstream is asked, but where TLS comes first.
    pub fn connected(&mut self, around: &mut Surroundings<'_>) {
        let Stage::Dialling(dialling) = &mut self.stage else { return };
        dialling.connected = true;
        self.deadline = around.now.plus_ms(dialling.handshake_ms);
        match &self.filter {
            Some(_) => self.queue.waits(around.now.ms),
            None => dialling.ask(&mut self.queue, around.now),
        }
    }

    /// TLS has failed with an upstream.
    pub(super) fn note_no_tls(&mut self) {
        if let Stage::Dialling(dialling) = &mut self.stage {
            dialling.cause = Cause::Nonsense("no TLS that both sides accept");
        }
    }

    /// Whether it waits for a connection that has no place yet.
    pub fn waits_for_dial(&self) -> bool {
        matches!(&self.stage, Stage::Waiting(waiting) if waiting.dialled.is_none())
            && self.ending == Ending::Open
    }

    /// The connection of its dial has a place.
    pub fn dials(&mut self, slot: Slot) {
        if let Stage::Waiting(waiting) = &mut self.stage {
            waiting.dialled = Some(slot);
        }
    }

    /// The upstream has opened a WebSocket with this subprotocol: the client gets what it wants.
    pub(super) fn linked(&mut self, protocol: Option<Box<str>>, around: &mut Surroundings<'_>) {
        let Stage::Waiting(waiting) = &mut self.stage else { return };
        let Some(other) = waiting.dialled.take() else { return };
        let Wish { head, records, channel, terms } = &mut waiting.wish;
        let (records, channel, terms) = (records.take(), channel.take(), terms.take());
        let mut out = self.queue.open_tail();
        out.extend_from_slice(head);
        let input = match records {
            Some(records) => {
                upgrade::finish(&mut out, protocol.as_deref(), None);
                stream::count(around);
                Input::Records(records)
            }
            None => {
                let extensions = channel.as_ref().map(|channel| channel.agreed().answer());
                upgrade::finish(&mut out, protocol.as_deref(), extensions.as_deref());
                around.counters.upgrades.add(1);
                Input::FRAMES
            }
        };
        self.queue.close_tail(out, around.now.ms);
        let mut half = Half::new(Role::Server, other, waiting.proxy.buffer_bytes, around.keys);
        half.chosen = waiting.chosen.take();
        half.chosen.iter().for_each(Chosen::worked);
        let endpoint = Endpoint::Half(Box::new(half));
        let socket = Socket::new(input, endpoint, channel, terms, around.now.ms);
        self.upgraded(socket, around);
    }

    /// The upstream that was tried will not have the client: the next one is tried, or it is told.
    pub(super) fn unlinked(&mut self, cause: &Cause, around: &mut Surroundings<'_>) {
        if self.ending != Ending::Open {
            return; // The client has been told, which has ended the dial: nobody's fault.
        }
        let counters = around.counters;
        let counter = match cause {
            Cause::NoSlot => &counters.proxy_no_slot,
            Cause::Unreachable => &counters.proxy_unreachable,
            Cause::Late { .. } => &counters.proxy_timed_out,
            Cause::Refused(..) => &counters.proxy_refused,
            Cause::Nonsense(_) => &counters.proxy_bad_answers,
        };
        counter.add(1);
        tracing::debug!(?cause, "an upstream does not open a WebSocket");
        let Stage::Waiting(waiting) = &mut self.stage else { return };
        waiting.dialled = None;
        if !cause.is_of_the_address() {
            waiting.put_back(cause.is_fault(), around);
        }
        if cause.may_be_tried_elsewhere() && !around.draining && waiting.dial(around) {
            return;
        }
        let fields: &[(&str, &str)] = match cause {
            Cause::Refused(401, Some(challenge)) => &[("WWW-Authenticate", challenge)],
            _ => &[],
        };
        self.refuse(cause.status(), cause.text(), fields, around);
    }

    /// Answers a client that waits with a refusal, and ends.
    pub(super) fn refuse(
        &mut self,
        status: u16,
        text: &str,
        fields: &[(&str, &str)],
        around: &mut Surroundings<'_>,
    ) {
        if let Stage::Waiting(waiting) = &self.stage {
            around.counters.http_requests.add(waiting.wish.records.is_some().into());
        }
        let mut out = self.queue.open_tail();
        let text = format!("{text}\n");
        let response = Response::text(status, &text).headers(fields);
        response.connection(Connection::Close).push(&mut out);
        around.counters.http_errors.add(1);
        self.queue.close_tail(out, around.now.ms);
        self.end(Ending::Flush, around);
    }
}

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";
