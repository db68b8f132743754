//! The state of one client connection, its rates, and how it reports errors.

use super::super::closing::Closing;
use super::super::context::DialectContext;
use super::super::env::Env;
use super::vendor::{ProtocolError, SubscribeRefusal, Vendor, VendorResponse};
use super::who::Who;
use crate::config::{AppLimits, BadSignature};
use crate::hub::ConnId;
use crate::time::{Now, RateLimit};
use std::marker::PhantomData;

/// The maximum number of protocol errors of one connection in a second. The connection is closed at
/// the next error.
const ERRORS_PER_SECOND: u8 = 10;

/// One client connection.
#[derive(Debug)]
pub struct Connection<V> {
    pub(super) app: u32,
    /// The second in which errors were last counted (its low 16 bits), and the number of errors in
    /// it.
    pub(super) error_second: u16,
    pub(super) errors: u8,
    pub(super) binaries: u8,
    /// Whether the client has sent a text message.
    pub(super) has_sent: bool,
    /// The client events of the client.
    pub(super) client_events: RateLimit,
    /// The fill level of the token bucket that limits the rate of subscriptions, and the low bits
    /// of the second in which it was last updated.
    pub(super) begun: u32,
    pub(super) begun_second: u16,
    /// The second by which the client must have signed in or joined a channel that is not public; 0
    /// if it has, or if the application has no such limit.
    pub(super) authorise_by_s: u32,
    /// State that most clients do not have: a signed-in user, presence channels, an inactivity
    /// timeout, or a stream of events in place of a WebSocket.
    pub(super) who: Option<Box<Who>>,
    pub(super) vendor: PhantomData<V>,
}

impl<V: Vendor> Connection<V> {
    pub(super) fn new(app: u32, within_s: u64, now: Now) -> Connection<V> {
        let mut conn = Connection {
            app,
            error_second: 0,
            errors: 0,
            binaries: 0,
            has_sent: false,
            client_events: RateLimit::default(),
            begun: 0,
            begun_second: 0,
            authorise_by_s: 0,
            who: None,
            vendor: PhantomData,
        };
        conn.authorise_within(within_s, now);
        conn
    }

    /// Sets the time within which the client must sign in or join a channel that is not public; 0
    /// is no such time.
    pub(super) fn authorise_within(&mut self, within_s: u64, now: Now) {
        let by_s = if within_s == 0 { 0 } else { now.ms.div_ceil(1000) + within_s };
        self.authorise_by_s = by_s as u32;
    }

    /// The second by which a client without pings must have sent a message; 0 if the client
    /// supports pings.
    pub(super) fn inactive_by_s(&self) -> u32 {
        let silence = self.who.as_ref().and_then(|who| who.silence.as_ref());
        silence.map_or(0, |silence| silence.since_s.saturating_add(silence.max_s))
    }

    /// Closes a connection that was admitted.
    pub(super) fn end(&self, context: &mut DialectContext<'_>, closing: Closing) {
        let sends_error = self.sends_error_before_close(context, &closing);
        end::<V>(context, closing, sends_error);
    }

    /// Whether an error event comes before this close: if the application's `error_before_close`
    /// requests that, or if the client receives server-sent events, which cannot read the close
    /// code.
    pub(super) fn sends_error_before_close(
        &self,
        context: &DialectContext<'_>,
        closing: &Closing,
    ) -> bool {
        let is_own = (4000..4300).contains(&closing.code);
        let listens = self.who.as_ref().is_some_and(|who| who.listens);
        is_own && (listens || context.env.apps.get(self.app).config.error_before_close)
    }

    /// Counts a client event. Returns false if there are now more than `max` in this second; `max`
    /// 0 is no limit.
    pub(super) fn may_publish_client_event(&mut self, now: Now, max: u16) -> bool {
        let events = self.client_events.add(1, now.ms);
        max == 0 || events <= max.into()
    }

    /// Counts a requested subscription. Returns false if it exceeds the rate limit, a token bucket:
    /// a burst of `subscriptions_per_connection` (or `subscriptions_per_s`, if that is greater),
    /// refilled at `subscriptions_per_s`. A rate of 0 is no limit.
    pub(super) fn may_subscribe(&mut self, now: Now, limits: &AppLimits) -> bool {
        let rate = u32::from(limits.subscriptions_per_s);
        let second = (now.ms / 1000) as u16;
        let passed = second.wrapping_sub(self.begun_second).into();
        self.begun = self.begun.saturating_sub(rate.saturating_mul(passed));
        self.begun_second = second;
        if rate == 0 {
            return true;
        }
        let may = (self.begun as usize) < limits.subscriptions_per_connection.max(rate as usize);
        self.begun += u32::from(may);
        may
    }

    /// Reports a protocol error that does not close the connection, as the vendor responds to it.
    /// More than [`ERRORS_PER_SECOND`] in a second close the connection.
    pub(super) fn protocol_error(
        &mut self,
        context: &mut DialectContext<'_>,
        protocol_error: ProtocolError<'_>,
    ) {
        match V::protocol_error(&protocol_error) {
            VendorResponse::Send(text) => self.report(context, Some(&text)),
            VendorResponse::Count => {
                ignored(context);
                self.report(context, None);
            }
            VendorResponse::Ignore => ignored(context),
        }
    }

    /// Refuses a subscription. A missing or wrong signature also closes the connection if the
    /// application has `bad_signature = "close"`.
    pub(super) fn refuse(
        &mut self,
        context: &mut DialectContext<'_>,
        name: &str,
        refusal: SubscribeRefusal<'_>,
    ) {
        let (kind, status) = refusal.kind(&V::DATA.refusals);
        let text = V::subscription_error(name, kind, &refusal.text(name), status);
        match V::DATA.quirks.refusals_count {
            true => self.report(context, Some(&text)),
            false => context.send_text(&text),
        }
        let unsigned = matches!(refusal, SubscribeRefusal::Signature | SubscribeRefusal::User);
        let policy = context.env.apps.get(self.app).config.bad_signature;
        if unsigned && policy == BadSignature::Close {
            end::<V>(context, V::DATA.codes.bad_signature.clone(), true);
        }
    }

    pub(super) fn report(&mut self, context: &mut DialectContext<'_>, text: Option<&[u8]>) {
        let second = (context.now.ms / 1000) as u16;
        if second != self.error_second {
            self.error_second = second;
            self.errors = 0;
        }
        self.errors += 1;
        if self.errors > ERRORS_PER_SECOND {
            self.end(context, V::DATA.codes.too_many_errors.clone());
        } else if let Some(text) = text {
            context.send_text(text);
        }
    }
}

/// Closes the connection, after the vendor's error event if it sends one before this close.
/// `refused` is passed to [`Vendor::before_close`].
pub(super) fn end<V: Vendor>(context: &mut DialectContext<'_>, closing: Closing, refused: bool) {
    if context.closing.is_none()
        && let Some(text) = V::before_close(&closing, refused)
    {
        context.send_text(&text);
    }
    context.close(closing);
}

/// Counts a message that was ignored.
pub(super) fn ignored(context: &DialectContext<'_>) {
    if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
        counters.messages_ignored.add(1);
    }
}

/// The socket id of a connection, by which clients and the HTTP API know it. See
/// [`SocketIds`](super::ids::SocketIds).
pub fn socket_id(env: &Env, conn: ConnId) -> String {
    env.socket_ids.write(conn)
}
