//! How a connection authenticates as a publisher, and the answers that its publisher gets.

use super::super::closing::Closing;
use super::super::context::DialectContext;
use super::connection::Connection;
use super::publisher::Publisher;
use super::vendor::Vendor;
use crate::hub::Answer;

/// The event that authenticates a publisher.
pub(super) const AUTHENTICATE: &str = "polycast:authenticate";
/// What a publisher signs after its socket id, and the role that it names.
const SIGNED: &[u8] = b":polycast:publisher";
const ROLE: &str = "publisher";

/// Handles a message that authenticates the connection as a publisher.
pub(super) fn authenticate<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    auth: &str,
    role: &str,
) {
    if role != ROLE {
        return refuse(conn, context, "Connection is unauthorized: the role must be publisher");
    }
    let (address, now_s) = (context.peer.ip(), context.now.unix_s);
    if !context.work.may_verify(address, now_s) {
        return refuse(conn, context, "Connection is unauthorized: too many invalid signatures");
    }
    if !conn.is_signed(context, auth, &[SIGNED]) {
        context.work.fail(address, now_s);
        return refuse(conn, context, "Connection is unauthorized: invalid publisher signature");
    }
    match &mut conn.who().publisher {
        Some(publisher) => publisher.auth = auth.into(),
        publisher => *publisher = Some(Box::new(Publisher::new(auth))),
    }
    conn.authorise_by_s = 0;
    context.send_text(br#"{"event":"polycast:authenticated","data":{"role":"publisher"}}"#);
}

/// Refuses a publish of a connection that has not authenticated.
pub(super) fn refuse_stranger<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
) {
    refuse(
        conn,
        context,
        "Connection is unauthorized: polycast:publish needs polycast:authenticate",
    );
}

/// Sends the vendor's error event with the code of a refused sign-in. The connection stays open,
/// within the limits of errors and of failures.
fn refuse<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    text: &'static str,
) {
    let closing = Closing::new(V::DATA.codes.sign_in.code, text);
    let error = V::before_close(&closing, true);
    conn.report(context, error.as_deref());
}

impl<V: Vendor> Connection<V> {
    pub(super) fn publisher(&self) -> Option<&Publisher> {
        self.who.as_ref()?.publisher.as_deref()
    }

    /// Handles the acknowledgement of a publish.
    pub(super) fn acknowledged(
        &mut self,
        context: &mut DialectContext<'_>,
        part: u16,
        answer: Answer,
    ) {
        let publisher = self.who.as_mut().and_then(|who| who.publisher.as_deref_mut());
        if let Some(text) = publisher.and_then(|it| it.acknowledged(part, answer)) {
            context.send_text(&text);
        }
    }

    /// Whether this is a publisher whose key or secret the application has no longer.
    pub(super) fn is_revoked(&self, context: &DialectContext<'_>) -> bool {
        let publisher = self.publisher();
        publisher.is_some_and(|publisher| !self.is_signed(context, &publisher.auth, &[SIGNED]))
    }
}
