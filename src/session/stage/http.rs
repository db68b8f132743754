//! The HTTP stage: pipelined requests and their responses in the same order, up to a WebSocket
//! handshake or a stream.

use super::replies::{PendingReply, Replies, Unfinished};
use super::respond::{REJECTED, ResponseOptions, error, push, refuse, router, send, unless_failed};
use super::transition::Transition;
use super::{cors, events, route, upgrade};
use crate::config;
use crate::dialect::{self, Answered, Why};
use crate::gateway;
use crate::gateway::forwarded::MalformedForwarding;
use crate::http::{self, Phase, Request, RequestEvent, Response};
use crate::session::context::context;
use crate::session::ending::{Ending, Progress};
use crate::session::front::Front;
use crate::session::{Context, SessionEvent};
use crate::time::Deadline;

/// The maximum length of a request body that is read although no endpoint uses it, in bytes.
/// Reading a short body keeps the connection usable.
const UNWANTED_BODY_BYTES: usize = 16 * 1024;

/// The HTTP requests of one connection.
#[derive(Default)]
pub(crate) struct Requests {
    reader: http::Reader,
    replies: Replies,
    /// Whether any whole request has been read.
    had_request: bool,
    /// What is known of the proxy in front, if there may be one.
    pub(crate) front: Option<Front>,
    /// Whether the head of the request whose body is being read was checked.
    head_checked: bool,
    /// Whether the drain has passed this connection once, which closes it the next time.
    passed_by_drain: bool,
}

impl Requests {
    pub(crate) fn new(front: Option<Front>) -> Requests {
        Requests { front, ..Requests::default() }
    }

    pub(crate) fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> (usize, Transition) {
        if self.replies.end_the_connection() {
            return (input.len(), Transition::NEED);
        }
        let limits = head_limits(cx);
        let phase = self.reader.phase();
        self.reader.offer(cx.env.streams);
        let (taken, mut event) = self.reader.next(&limits, input);
        // By reference, because a request is large: its table of header fields would be copied.
        let after = match &mut event {
            RequestEvent::Need => self.look_at_head(cx),
            RequestEvent::Continue => self.on_continue(cx),
            RequestEvent::Head(request, _) | RequestEvent::Request(request)
                if cx.identify(request).is_err() =>
            {
                self.replies.push(unidentified(cx));
                Progress::Again
            }
            RequestEvent::Head(request, body) => {
                if let Some(entry) = router(cx).stream(request) {
                    if self.replies.is_empty() {
                        return (taken, route::open_stream(request, *body, entry, out, cx));
                    }
                    self.replies.push(PendingReply::too_early(cx));
                }
                Progress::Again
            }
            RequestEvent::Request(request) => {
                self.had_request = true;
                // Its client sends the next request to the server that takes over.
                request.keep_alive &= !(cx.draining || cx.env.runtime.departure.is_leaving());
                let room = self.replies.is_empty().then_some(&mut *out);
                match open_or_answer(request, room, cx) {
                    Ok(reply) => self.replies.push(reply),
                    Err(opened) => return (taken, opened),
                }
                Progress::Again
            }
            RequestEvent::Bad(error) => {
                cx.counters.http_errors.add(1);
                let mut bytes = Vec::new();
                error.respond(&mut bytes);
                self.replies.push(PendingReply::bytes(bytes, true));
                Progress::Again
            }
        };
        self.arm(phase, deadline, cx);
        self.head_checked &= self.reader.phase() == Phase::Body;
        self.reader.take_back();
        (taken, Transition::Stay(after))
    }

    /// Handles a client that waits for 100 Continue before it sends the body.
    fn on_continue(&mut self, cx: &mut Context<'_>) -> Progress {
        if matches!(self.look_at_head(cx), Progress::Need) {
            let bytes = http::CONTINUE.to_vec();
            self.replies.push(PendingReply::bytes(bytes, false));
        }
        Progress::Again
    }

    /// Checks the head of a request whose body has not arrived. If the body is long and no endpoint
    /// would use it, the request is answered without it and the connection ends.
    fn look_at_head(&mut self, cx: &mut Context<'_>) -> Progress {
        let is_short = self.reader.body_bytes() <= UNWANTED_BODY_BYTES;
        if self.head_checked || self.reader.phase() != Phase::Body || is_short {
            return Progress::Need;
        }
        let Some(mut request) = self.reader.head() else { return Progress::Need };
        self.head_checked = true;
        if cx.identify(&request).is_err() {
            self.replies.push(unidentified(cx));
            self.discard();
            return Progress::Again;
        }
        if upgrade::wanted(&request) || needs_body(&request, cx) {
            return Progress::Need;
        }
        request.keep_alive = false;
        let reply = if router(cx).renews(&request) {
            let mut bytes = Vec::new();
            let refusal = gateway::RouteRefusal::Body;
            refuse(refusal, http::Connection::Close, false, &mut bytes, cx);
            PendingReply::bytes(bytes, true)
        } else {
            let Ok(reply) = answer(&mut request, None, cx) else { return Progress::Again };
            reply
        };
        cx.counters.http_bodies_unread.add(1);
        self.had_request = true;
        self.replies.push(reply);
        self.discard();
        Progress::Again
    }

    /// Sets the deadline when the reader's phase has changed. The timeout of a request runs from
    /// its first byte, however its bytes are spread over time.
    fn arm(&self, before: Phase, deadline: &mut Deadline, cx: &Context<'_>) {
        let timeouts = &cx.env.config.timeouts;
        let phase = self.reader.phase();
        match phase {
            // Blank lines before the first request do not extend the deadline.
            Phase::Idle if self.is_fresh() => {}
            Phase::Idle => *deadline = cx.now.plus_ms(timeouts.keep_alive_ms),
            Phase::Head if before != Phase::Head => {
                // The timeout of the first request runs from the start of the connection.
                let head = cx.now.plus_ms(timeouts.head_ms);
                *deadline = if self.replies.none_was_sent() { head.min(*deadline) } else { head };
            }
            Phase::Body if before != Phase::Body => {
                *deadline = cx.now.plus_ms(timeouts.body_ms);
            }
            Phase::Head | Phase::Body | Phase::Failed => {}
        }
    }

    /// Handles a deadline that is due.
    pub(crate) fn on_deadline(&mut self, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Progress {
        cx.counters.timed_out.add(1);
        if !self.replies.is_empty() {
            // The acknowledgements of another core are overdue and will not arrive any more.
            return Progress::End(Ending::Cut);
        }
        if matches!(self.reader.phase(), Phase::Head | Phase::Body) {
            cx.counters.http_errors.add(1);
            let text = "the request took too long to arrive\n";
            Response::text(408, text).connection(http::Connection::Close).push(out);
        }
        Progress::End(Ending::Flush)
    }

    /// Heap bytes of an unfinished request and of replies that wait.
    pub(crate) fn held_bytes(&self) -> usize {
        let header = self.front.as_ref().map_or(0, Front::held_bytes);
        header + self.reader.held_bytes() + self.replies.held_bytes()
    }

    /// Frees the input; nothing more is read.
    pub(crate) fn discard(&mut self) {
        self.reader = http::Reader::new();
    }

    pub(crate) fn is_fresh(&self) -> bool {
        !self.had_request
    }

    /// Whether the connection is idle: it has had a request and waits for the next.
    pub(crate) fn is_idle(&self) -> bool {
        self.had_request && self.replies.is_empty() && self.reader.phase() == Phase::Idle
    }

    /// Whether no further request is read for now: `HTTP_PIPELINE` replies wait, or one whose
    /// answers may be large.
    pub(crate) fn is_full(&self) -> bool {
        self.replies.is_full()
    }

    pub(super) fn ticket(&self) -> Option<u32> {
        self.replies.ticket()
    }

    pub(super) fn collects_answers(&self, ticket: u32) -> bool {
        self.replies.collects_answers(ticket)
    }

    pub(super) fn has_ready_reply(&self) -> bool {
        self.replies.has_ready()
    }

    /// Moves the replies that are complete into `out`. Returns true if the connection ends after
    /// them.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> bool {
        self.replies.flush(out, cx)
    }

    /// Handles an event of the connection.
    pub(super) fn on(
        &mut self,
        event: SessionEvent<'_>,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        match event {
            SessionEvent::AcksAwaited { ticket, count } => self.replies.await_acks(ticket, count),
            SessionEvent::Acked(ticket) => self.replies.acked(ticket),
            SessionEvent::Answered { ticket, part, answer } => {
                self.replies.answered(ticket, part, answer);
            }
            SessionEvent::CloseFor(why) if self.replies.is_empty() => {
                // A request that is on its way, or has arrived in part, is answered. The deadlines
                // of the request and of the drain bound the time.
                let is_spared = why == Why::Draining
                    && (!self.passed_by_drain || self.reader.phase() != Phase::Idle);
                self.passed_by_drain = true;
                return if is_spared { Progress::Need } else { Progress::End(Ending::Flush) };
            }
            SessionEvent::OutOfMemory if self.replies.is_empty() => {
                let answer = Response::text(503, "the server is short of memory\n");
                answer.connection(http::Connection::Close).push(out);
                cx.counters.http_errors.add(1);
                return Progress::End(Ending::Flush);
            }
            SessionEvent::OutOfMemory => return Progress::End(Ending::Cut),
            _ => {}
        }
        Progress::Need
    }
}

fn head_limits(cx: &Context<'_>) -> http::HeadLimits {
    let configured = &cx.env.config.limits;
    http::HeadLimits {
        head_bytes: configured.http_head_bytes,
        head_fields: configured.http_head_fields,
        body_bytes: configured.http_body_bytes,
    }
}

/// The response to a request of a trusted proxy whose client cannot be found.
fn unidentified(cx: &Context<'_>) -> PendingReply {
    cx.counters.http_errors.add(1);
    let mut bytes = Vec::new();
    let text = format!("{MalformedForwarding}\n");
    Response::text(400, &text).connection(http::Connection::Close).push(&mut bytes);
    PendingReply::bytes(bytes, true)
}

/// Whether any endpoint that the request may reach would use its body.
fn needs_body(request: &Request<'_>, cx: &mut Context<'_>) -> bool {
    let router = router(cx);
    if router.renews(request) {
        return false;
    }
    let (mut out, mut closing) = (Vec::new(), None);
    let mut cx = context(&mut out, None, &mut closing, cx);
    router.candidates(request).iter().any(|route| match route.endpoint {
        endpoint if endpoint.has_api() => dialect::needs_body(&mut cx, endpoint, request),
        _ => false,
    })
}

/// Handles a whole request: a WebSocket handshake, or a request that is answered. `room` is where
/// the response is written if it is that to a handshake or a stream of events, which begins only
/// while no earlier request waits for its response.
///
/// # Errors
/// What the connection becomes in place of a reply.
fn open_or_answer(
    request: &mut Request<'_>,
    room: Option<&mut Vec<u8>>,
    cx: &mut Context<'_>,
) -> Result<PendingReply, Transition> {
    match room {
        Some(out) if upgrade::wanted(request) => Err(route::open(request, out, cx)),
        None if upgrade::wanted(request) => Ok(PendingReply::too_early(cx)),
        room => answer(request, room, cx),
    }
}

/// Answers a request. `room` is where the response is written if it is a stream of events, which
/// begins only while no earlier request waits for its response.
///
/// # Errors
/// The stream that has begun in place of a reply.
fn answer(
    request: &mut Request<'_>,
    room: Option<&mut Vec<u8>>,
    cx: &mut Context<'_>,
) -> Result<PendingReply, Transition> {
    let connection = request.connection();
    let head_only = request.method == "HEAD";
    let router = router(cx);
    if let Some(outcome) = router.renewal(request) {
        let (connection, last) = unless_failed(connection, cx);
        let mut bytes = Vec::new();
        match outcome {
            Ok(()) => {
                send(204, &Response::new(204, "", b"").connection(connection), &mut bytes, cx)
            }
            Err(refusal) => refuse(refusal, connection, head_only, &mut bytes, cx),
        }
        return Ok(PendingReply::bytes(bytes, last));
    }
    if let Some(page) = gateway::challenge(request, &cx.env.runtime.issued) {
        return Ok(page_reply(&page, request, cx));
    }
    let found = router.page(request);
    match found {
        Ok(entry) => match events::target(entry.route, request, cx) {
            Some(target) => {
                let (bytes, last) = events::answer(target, entry, request, room, cx)?;
                Ok(PendingReply::bytes(bytes, last))
            }
            None => Ok(answer_page(Some(entry.route), request, cx)),
        },
        Err(gateway::RouteRefusal::NoRoute) => Ok(answer_page(None, request, cx)),
        Err(refusal) => {
            let (connection, last) = unless_failed(connection, cx);
            let mut bytes = Vec::new();
            refuse(refusal, connection, head_only, &mut bytes, cx);
            Ok(PendingReply::bytes(bytes, last))
        }
    }
}

/// Answers a request that is neither for a WebSocket nor for a stream.
fn answer_page(
    route: Option<&config::Route>,
    request: &mut Request<'_>,
    cx: &mut Context<'_>,
) -> PendingReply {
    let endpoint = route.map(|route| route.endpoint);
    if let Some(page) = endpoint.and_then(|endpoint| page(endpoint, request, cx)) {
        return page_reply(&page, request, cx);
    }
    let head_only = request.method == "HEAD";
    let (connection, last) = unless_failed(request.connection(), cx);
    let is_app = matches!(endpoint, Some(config::EndpointKind::Apps));
    let shared_with = if is_app { dialect::shared_with(cx.env, request) } else { None };
    if let Some(origin) = &shared_with
        && cors::is_preflight(request)
    {
        let mut bytes = Vec::new();
        let fields = cors::preflight(origin);
        let response = Response::new(204, "", b"").headers(&fields).connection(connection);
        send(204, &response, &mut bytes, cx);
        return PendingReply::bytes(bytes, last);
    }
    let answered = dispatch(route, request, cx);
    let (finish, gathers) = match answered {
        Answered::Now(reply) => {
            let mut bytes = Vec::new();
            let manner = ResponseOptions { connection, head_only };
            push(&reply, manner, shared_with.as_ref(), &mut bytes, cx);
            return PendingReply::bytes(bytes, last);
        }
        Answered::Later(finish) => (finish, false),
        Answered::Gathered(finish) => (finish, true),
    };
    let unfinished = Unfinished::new(finish, connection, head_only, shared_with);
    PendingReply::later(unfinished, last, gathers)
}

fn page_reply(page: &gateway::Page, request: &Request<'_>, cx: &Context<'_>) -> PendingReply {
    let (connection, last) = unless_failed(request.connection(), cx);
    let mut bytes = Vec::new();
    let response = Response::new(page.status, page.content_type, &page.body);
    let response = response.headers(page.fields).connection(connection);
    send(page.status, &response.head_only(request.method == "HEAD"), &mut bytes, cx);
    PendingReply::bytes(bytes, last)
}

/// Gives a request to its endpoint.
fn dispatch(
    route: Option<&config::Route>,
    request: &mut Request<'_>,
    cx: &mut Context<'_>,
) -> Answered {
    match route.map(|route| route.endpoint) {
        Some(endpoint) if endpoint.has_api() => {
            let (mut out, mut closing) = (Vec::new(), None);
            let mut context = context(&mut out, None, &mut closing, cx);
            // Nobody is to lose a request because of an upgrade.
            context.draining &= !context.env.runtime.departure.is_replaced();
            dialect::request(&mut context, endpoint, request)
        }
        // Over HTTP/1.1 this request has been opened as a stream already.
        Some(_) if request.method == "POST" && route.is_some_and(|route| route.stream) => {
            Answered::Now(error(505, "a stream needs HTTP/1.1"))
        }
        Some(config::EndpointKind::Reject) => {
            Answered::Now(error(route.map_or(404, |route| route.status), REJECTED))
        }
        Some(endpoint) if endpoint.has_sockets() => {
            Answered::Now(error(426, "a WebSocket is served here"))
        }
        _ => Answered::Now(error(404, "nothing is served at this path")),
    }
}

fn page(
    endpoint: config::EndpointKind,
    request: &Request<'_>,
    cx: &Context<'_>,
) -> Option<gateway::Page> {
    let env = cx.env;
    let departure = &env.runtime.departure;
    let visit = gateway::Visit {
        peer: cx.peer.ip(),
        config: &env.config,
        counters: &env.runtime.counters,
        control: &env.runtime.control,
        connections: &|app| env.apps.get(app as u32).connections(),
        dropped_hooks: &|app| env.apps.get(app as u32).dropped_hooks(),
        issued: &env.runtime.issued,
        cluster: &env.runtime.cluster,
        leaving: !departure.is_replaced() && (cx.draining || departure.is_leaving())
            || !env.runtime.cluster.is_ready(),
        now_ms: cx.now.ms,
    };
    gateway::page(endpoint, request, &visit)
}
