//! The HTTP stage: requests in order, answers in the same order, and the way to a WebSocket.

use super::socket::{Endpoint, Socket, Terms};
use super::stream::{self, Input};
use super::upstream::{self, Wish};
use super::{After, Ending, Surroundings, context, upgrade};
use crate::config;
use crate::dialect::{self, Answered, Connection, Context, Finish, Opening, Reply};
use crate::gateway;
use crate::http::{self, Event, Phase, Request, Response};
use crate::hub::Answer;
use crate::jwt::Leases;
use crate::limits::HTTP_PIPELINE;
use crate::time::Deadline;
use crate::ws::extension::{self, Agreed, Compression};
use crate::ws::output::Channel;
use std::collections::VecDeque;

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Requests {
    reader: http::Reader,
    /// Answers that wait for their turn or for acknowledgements, oldest first.
    replies: VecDeque<Waiting>,
    /// The number of the oldest.
    first: u32,
    /// Whether any request has been read to its end.
    had_request: bool,
}

/// One reply.
struct Waiting {
    acks: u32,
    body: Body,
    /// Whether the connection ends behind it.
    last: bool,
}

enum Body {
    /// The whole response.
    Bytes(Vec<u8>),
    /// Made of answers, when all are there.
    Later(Box<Unfinished>),
}

struct Unfinished {
    finish: Finish,
    answers: Vec<(u16, Answer)>,
    connection: http::Connection,
    head_only: bool,
}

impl Waiting {
    fn bytes(bytes: Vec<u8>, last: bool) -> Waiting {
        Waiting { acks: 0, body: Body::Bytes(bytes), last }
    }

    /// The answer to a request that cannot wait for its turn.
    fn too_early(around: &Surroundings<'_>) -> Waiting {
        around.counters.http_errors.add(1);
        let mut bytes = Vec::new();
        let text = "earlier requests are not answered yet\n";
        Response::text(400, text).connection(http::Connection::Close).push(&mut bytes);
        Waiting::bytes(bytes, true)
    }
}

impl Requests {
    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        around: &mut Surroundings<'_>,
    ) -> (usize, After) {
        if self.replies.back().is_some_and(|reply| reply.last) {
            return (input.len(), After::Need);
        }
        let configured = &around.env.config.limits;
        let limits = http::Limits {
            head_bytes: configured.http_head_bytes,
            body_bytes: configured.http_body_bytes,
        };
        let phase = self.reader.phase();
        self.reader.offer(around.env.streams);
        let (taken, event) = self.reader.next(&limits, input);
        let after = match event {
            Event::Need => After::Need,
            Event::Continue => {
                let bytes = http::CONTINUE.to_vec();
                self.replies.push_back(Waiting::bytes(bytes, false));
                After::Again
            }
            Event::Head(request, body) => {
                if let Some(entry) = door(around).stream(&request) {
                    if self.replies.is_empty() {
                        return (taken, stream::open(&request, body, entry, out, around));
                    }
                    self.replies.push_back(Waiting::too_early(around));
                }
                After::Again
            }
            Event::Request(request) if upgrade::wanted(&request) => {
                self.had_request = true;
                if self.replies.is_empty() {
                    return (taken, open(&request, out, around));
                }
                self.replies.push_back(Waiting::too_early(around));
                After::Again
            }
            Event::Request(mut request) => {
                self.had_request = true;
                let reply = answer(&mut request, around);
                self.replies.push_back(reply);
                After::Again
            }
            Event::Bad(error) => {
                around.counters.http_errors.add(1);
                let mut bytes = Vec::new();
                error.respond(&mut bytes);
                self.replies.push_back(Waiting::bytes(bytes, true));
                After::Again
            }
        };
        self.arm(phase, deadline, around);
        (taken, after)
    }

    /// Moves the deadline when the phase has changed. One request has its time from its first
    /// byte, however its bytes are spread.
    fn arm(&self, before: Phase, deadline: &mut Deadline, around: &Surroundings<'_>) {
        let timeouts = &around.env.config.timeouts;
        let phase = self.reader.phase();
        match phase {
            // Blank lines before the first request buy no time.
            Phase::Idle if self.is_fresh() => {}
            Phase::Idle => *deadline = around.now.plus_ms(timeouts.keep_alive_ms),
            Phase::Head if before != Phase::Head => {
                // The first request has its time from the connection's start.
                let head = around.now.plus_ms(timeouts.head_ms);
                *deadline = if self.first == 0 { head.min(*deadline) } else { head };
            }
            Phase::Body if before != Phase::Body => {
                *deadline = around.now.plus_ms(timeouts.body_ms);
            }
            Phase::Head | Phase::Body | Phase::Failed => {}
        }
    }

    /// The deadline has come.
    pub(super) fn late(&mut self, out: &mut Vec<u8>, around: &mut Surroundings<'_>) -> After {
        around.counters.timed_out.add(1);
        if !self.replies.is_empty() {
            // What another core has not acknowledged in this time, it never will.
            return After::End(Ending::Cut);
        }
        if matches!(self.reader.phase(), Phase::Head | Phase::Body) {
            around.counters.http_errors.add(1);
            let text = "the request took too long to arrive\n";
            Response::text(408, text).connection(http::Connection::Close).push(out);
        }
        After::End(Ending::Flush)
    }

    pub(super) fn is_fresh(&self) -> bool {
        !self.had_request
    }

    pub(super) fn is_full(&self) -> bool {
        self.replies.len() >= HTTP_PIPELINE
    }

    pub(super) fn ticket(&self) -> Option<u32> {
        let waiting = self.replies.len() as u32;
        (waiting > 0).then(|| self.first.wrapping_add(waiting - 1))
    }

    fn waiting(&mut self, ticket: u32) -> Option<&mut Waiting> {
        self.replies.get_mut(ticket.wrapping_sub(self.first) as usize)
    }

    pub(super) fn await_ack(&mut self, ticket: u32) {
        if let Some(reply) = self.waiting(ticket) {
            reply.acks += 1;
        }
    }

    pub(super) fn acked(&mut self, ticket: u32) {
        if let Some(reply) = self.waiting(ticket) {
            reply.acks = reply.acks.saturating_sub(1);
        }
    }

    pub(super) fn answered(&mut self, ticket: u32, part: u16, answer: Answer) {
        if let Some(Waiting { body: Body::Later(unfinished), .. }) = self.waiting(ticket) {
            unfinished.answers.push((part, answer));
        }
    }

    pub(super) fn collects_answers(&self, ticket: u32) -> bool {
        let at = ticket.wrapping_sub(self.first) as usize;
        matches!(self.replies.get(at), Some(Waiting { body: Body::Later(_), .. }))
    }

    pub(super) fn has_ready_reply(&self) -> bool {
        self.replies.front().is_some_and(|reply| reply.acks == 0)
    }

    /// Moves the answers that are ready into `out`; true when the connection ends behind them.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>, around: &Surroundings<'_>) -> bool {
        while self.has_ready_reply()
            && let Some(reply) = self.replies.pop_front()
        {
            self.first = self.first.wrapping_add(1);
            match reply.body {
                Body::Bytes(bytes) => out.extend_from_slice(&bytes),
                Body::Later(it) => {
                    let reply = (it.finish)(it.answers);
                    push(&reply, it.connection, it.head_only, out, around);
                }
            }
            if reply.last {
                return true;
            }
        }
        if self.replies.is_empty() && self.replies.capacity() > 4 {
            self.replies = VecDeque::new();
        }
        false
    }
}

fn answer(request: &mut Request<'_>, around: &mut Surroundings<'_>) -> Waiting {
    let connection = request.connection();
    let last = connection == http::Connection::Close;
    let head_only = request.method == "HEAD";
    let door = door(around);
    if let Some(outcome) = door.renewal(request) {
        let mut bytes = Vec::new();
        match outcome {
            Ok(()) => {
                send(204, &Response::new(204, "", b"").connection(connection), &mut bytes, around)
            }
            Err(refusal) => refuse(refusal, connection, head_only, &mut bytes, around),
        }
        return Waiting::bytes(bytes, last);
    }
    let route = match door.page(request) {
        Ok(entry) => Some(entry.route),
        Err(gateway::Refusal::NoRoute) => None,
        Err(refusal) => {
            let mut bytes = Vec::new();
            refuse(refusal, connection, head_only, &mut bytes, around);
            return Waiting::bytes(bytes, last);
        }
    };
    let endpoint = route.map(|route| route.endpoint);
    if let Some(page) = endpoint.and_then(|endpoint| page(endpoint, request, around)) {
        let mut bytes = Vec::new();
        let response = Response::new(page.status, page.content_type, &page.body);
        let response = response.headers(page.fields).connection(connection).head_only(head_only);
        send(page.status, &response, &mut bytes, around);
        return Waiting::bytes(bytes, last);
    }
    let answered = match endpoint {
        Some(
            endpoint @ (config::Endpoint::Apps
            | config::Endpoint::Zenith
            | config::Endpoint::Zilliqa),
        ) => {
            let (mut out, mut closing) = (Vec::new(), None);
            let mut context = context(&mut out, None, &mut closing, around);
            dialect::request(&mut context, endpoint, request)
        }
        // That of HTTP/1.1 has been answered.
        Some(_) if request.method == "POST" && route.is_some_and(|route| route.stream) => {
            Answered::Now(error(505, "a stream needs HTTP/1.1"))
        }
        Some(config::Endpoint::Echo | config::Endpoint::Reflect | config::Endpoint::Proxy) => {
            Answered::Now(error(426, "a WebSocket is served here"))
        }
        Some(config::Endpoint::Reject) => {
            Answered::Now(error(route.map_or(404, |route| route.status), REJECTED))
        }
        _ => Answered::Now(error(404, "nothing is served at this path")),
    };
    match answered {
        Answered::Now(reply) => {
            let mut bytes = Vec::new();
            push(&reply, connection, head_only, &mut bytes, around);
            Waiting::bytes(bytes, last)
        }
        Answered::Later(finish) => {
            let unfinished = Unfinished { finish, answers: Vec::new(), connection, head_only };
            Waiting { acks: 0, body: Body::Later(Box::new(unfinished)), last }
        }
    }
}

fn page(
    endpoint: config::Endpoint,
    request: &Request<'_>,
    around: &Surroundings<'_>,
) -> Option<gateway::Page> {
    let env = around.env;
    let visit = gateway::Visit {
        peer: around.peer.ip(),
        config: &env.config,
        counters: &env.counters,
        control: &env.control,
        connections: &|app| env.apps.get(app as u32).connections(),
        draining: around.draining,
    };
    gateway::page(endpoint, request, &visit)
}

/// Writes a reply.
fn push(
    reply: &Reply,
    connection: http::Connection,
    head_only: bool,
    out: &mut Vec<u8>,
    around: &Surroundings<'_>,
) {
    let fields: &[(&str, &str)] = match (reply.status, reply.allow) {
        (405, Some(allow)) => &[("Allow", allow)],
        (426, _) => {
            &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        }
        _ => &[],
    };
    let response = Response::json(reply.status, &reply.body).headers(fields);
    send(reply.status, &response.connection(connection).head_only(head_only), out, around);
}

fn send(status: u16, response: &Response<'_>, out: &mut Vec<u8>, around: &Surroundings<'_>) {
    around.counters.http_requests.add(1);
    if status >= 400 {
        around.counters.http_errors.add(1);
    }
    response.push(out);
}

fn error(status: u16, message: &str) -> Reply {
    let body = format!(r#"{{"error":"{message}","code":{status}}}"#).into_bytes();
    Reply { status, body: body.into(), allow: None }
}

const REJECTED: &str = "this is not served";

/// The door as this connection stands before it.
fn door<'a>(around: &Surroundings<'a>) -> gateway::Door<'a> {
    gateway::Door {
        config: &around.env.config,
        guards: &around.env.guards,
        listener: around.env.listener(around.listener),
        secure: around.secure,
        client: around.identity.clone(),
        now: around.now,
        counters: around.counters,
    }
}

/// Answers a plain request that is not let in.
pub(super) fn refuse(
    refusal: gateway::Refusal,
    connection: http::Connection,
    head_only: bool,
    out: &mut Vec<u8>,
    around: &Surroundings<'_>,
) {
    let body = error(refusal.status(), refusal.text()).body;
    let response = Response::json(refusal.status(), &body).headers(refusal.fields());
    send(refusal.status(), &response.connection(connection).head_only(head_only), out, around);
}

/// Answers a request for a WebSocket, all earlier requests being answered.
fn open(request: &Request<'_>, out: &mut Vec<u8>, around: &mut Surroundings<'_>) -> After {
    let counters = around.counters;
    let refuse_with = |out: &mut Vec<u8>, status, text: &str, fields: &[(&str, &str)]| {
        let response = Response::text(status, text).headers(fields);
        response.connection(http::Connection::Close).push(out);
        counters.http_errors.add(1);
        After::End(Ending::Flush)
    };
    let refuse = |out: &mut Vec<u8>, status, text: &str| refuse_with(out, status, text, &[]);
    let accepted = match upgrade::check(request) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            refusal.respond(out);
            around.counters.http_errors.add(1);
            return After::End(Ending::Flush);
        }
    };
    let gateway::Entry { route, protocol: listed, leases, claims } =
        match door(around).socket(request) {
            Ok(entry) => entry,
            Err(refusal) => {
                let text = format!("{}\n", refusal.text());
                return refuse_with(out, refusal.status(), &text, refusal.fields());
            }
        };
    if route.endpoint == config::Endpoint::Reject {
        return refuse(out, route.status, &format!("{REJECTED}\n"));
    }
    let Ok(agreed) = extension::negotiate(accepted.extensions(), compression(route)) else {
        return refuse(out, 400, "Sec-WebSocket-Extensions is malformed\n");
    };
    if let Some(proxy) = &route.proxy {
        let channel = agreed.and_then(|agreed| compress(agreed, &accepted, around));
        let terms = Terms::new(route.rules.get().cloned(), leases);
        let mut head = Vec::new();
        upgrade::begin(&mut head, &accepted);
        let wish = Wish { head, records: None, channel, terms };
        let waiting = upstream::Waiting::begin(proxy, request, wish, around);
        return waiting.unwrap_or_else(|(status, text)| refuse(out, status, &format!("{text}\n")));
    }
    let opening = Opening {
        route,
        path: request.path(),
        query: request.query(),
        origin: accepted.origin(),
        secure: around.secure,
        headers: &request.headers,
        claims: claims.as_ref(),
    };
    let chosen = match route.endpoint {
        config::Endpoint::Echo => Ok(None),
        _ => Connection::subprotocol(around.env, &opening),
    };
    let protocol = match chosen {
        Ok(protocol) => protocol.or(listed),
        Err(refused) => return refuse(out, refused.status, &format!("{}\n", refused.text)),
    };
    let channel = agreed.and_then(|agreed| compress(agreed, &accepted, around));
    let answer = channel.as_ref().map(|channel| channel.agreed().answer());
    upgrade::accept(out, &accepted, protocol, answer.as_deref());
    around.counters.upgrades.add(1);
    enter(Input::FRAMES, channel, leases, &opening, out, around)
}

/// Opens a connection, whose handshake is answered, at the endpoint of its route.
pub(super) fn enter(
    input: Input,
    mut channel: Option<Box<Channel>>,
    leases: Option<Box<Leases>>,
    opening: &Opening<'_>,
    out: &mut Vec<u8>,
    around: &mut Surroundings<'_>,
) -> After {
    let mut wanted = None;
    let endpoint =
        endpoint(opening, &mut context(out, channel.as_deref_mut(), &mut wanted, around));
    let terms = Terms::new(opening.route.rules.get().cloned(), leases);
    let mut socket = Socket::new(input, endpoint, channel, terms, around.now.ms);
    if let Some(closing) = wanted {
        socket.close(&closing, out);
    }
    After::Upgraded(Box::new(socket))
}

fn endpoint(opening: &Opening<'_>, context: &mut Context<'_>) -> Endpoint {
    if opening.route.endpoint == config::Endpoint::Echo {
        return Endpoint::Echo;
    }
    Connection::open(context, opening).map_or(Endpoint::Refused, Endpoint::Dialect)
}

fn compression(route: &config::Route) -> Compression {
    match route.compression {
        config::Compression::Off => Compression::Off,
        config::Compression::Shared => Compression::Shared,
        config::Compression::Dedicated => Compression::Dedicated,
    }
}

/// What was agreed on, or less when the core's memory for windows is used up.
fn compress(
    agreed: Agreed,
    accepted: &upgrade::Upgrade<'_>,
    around: &mut Surroundings<'_>,
) -> Option<Box<Channel>> {
    let least = around.env.config.compression.min_bytes;
    let channel = Channel::new(agreed, least, around.codecs).or_else(|| {
        around.counters.windows_refused.add(1);
        let shared = extension::negotiate(accepted.extensions(), Compression::Shared);
        Channel::new(shared.ok()??, least, around.codecs)
    });
    channel.map(Box::new)
}
