//! Channels as server-sent events: a connection that only receives, whose subscriptions and their
//! authorisation are in the query of its request.
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `channels` | the names of channels, separated by commas |
//! | `channel` | the name of one more channel, which may have commas; may occur several times |
//! | `socket_id` | any socket id of the client's choice, for which private channels are signed |
//! | `auth` | `key:signature` of one private channel; once for each, in the order of the channels |
//! | `lastEventId` | the id of the last event that was received, if `Last-Event-ID` has none |
//!
//! A stream of channels that have a history resumes after the last event. The events of these
//! channels have ids: their positions or, if there are several such channels, the positions of all.

use super::super::context::{DialectContext, Opening};
use super::super::effects::Effect;
use super::super::forms::history_of;
use super::super::reply::HttpReply;
use super::connection::Connection;
use super::data::ChannelKind;
use super::reply::{ApiRefusal, json_error};
use super::vendor::{SubscribeRefusal, Vendor};
use super::{channel, commands};
use crate::http::query::{self, PlusSign};
use crate::hub::{Form, JoinRequest, ResumeFrom, ResumeRequest};
use crate::ws::event_ids::EventIds;
use crate::ws::record::EventId;
use std::borrow::Cow;
use std::collections::HashSet;

/// Admits a connection and requests its subscriptions. Everything is checked first.
///
/// # Errors
/// The reply that refuses the request.
pub(super) fn listen<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    opening: &Opening<'_>,
) -> Result<(Connection<V>, EventIds), HttpReply> {
    let refuse = |(status, text): ApiRefusal| json_error::<V>(status, &text);
    admit::<V>(context, app, opening).map_err(refuse)?;
    let query = ListenQuery::read(opening.query).map_err(refuse)?;
    let is_authorised = authorise::<V>(context, app, &query).map_err(refuse)?;
    let entry = context.env.apps.get(app);
    if entry.config.authorise_within_s > 0 && !is_authorised {
        return Err(refuse((401, "The application requires a private channel".into())));
    }
    let admission = entry.admit(context.now.ms);
    let max = entry.config.limits.subscriptions_per_connection;
    let histories = query.channels.iter().map(|name| history_of(context.env, app, name));
    let histories: Vec<_> = histories.collect();
    let count = histories.iter().flatten().count();
    if count > EventIds::MAX && opening.last_event_id().is_some() {
        context.count_malformed_id();
    }
    let (mut places, mut joins) = (Places::new(opening, count), Vec::new());
    for (name, history) in query.channels.into_iter().zip(histories) {
        let cached = channel::is_cached(V::DATA, &name);
        let at = history.and_then(|history| Some((history, places.next()?)));
        let form = at.map_or(Form::PUBLISHED, |(_, (form, _))| form);
        let resume =
            at.map(|(it, (_, from))| ResumeRequest { from, limit: it.limit, view: form.view });
        let request = JoinRequest { cached, resume, ..JoinRequest::default() };
        let request = (cached || resume.is_some()).then_some(request);
        let name = name.into_owned();
        joins.push(Effect::Join { app, name, max, request, form });
    }
    let mut conn = Connection::new(app, 0, context.now);
    conn.who().listens = true;
    let begun = conn.begin(context, admission, joins);
    begun.map_err(|closing| refuse((503, closing.reason.clone())))?;
    Ok((conn, places.ids))
}

/// Where the positions of the channels with a history are in the ids of a stream, and where the
/// client resumes these channels.
struct Places {
    /// The positions that the client has sent, if there are several such channels.
    ids: EventIds,
    /// Where the client resumes the only such channel, or all of them if it has sent no positions.
    from: ResumeFrom,
    /// The number of such channels, and of those that [`Places::next`] has returned.
    count: usize,
    returned: u8,
}

impl Places {
    fn new(opening: &Opening<'_>, count: usize) -> Places {
        let has_several = (2..=EventIds::MAX).contains(&count);
        let mut ids = EventIds::new(if has_several { count } else { 0 });
        let from = match opening.last_event_id() {
            None => ResumeFrom::Present,
            Some(text) if has_several => match EventIds::read(&text, count) {
                Some(sent) => {
                    ids = sent;
                    ResumeFrom::Present
                }
                None => ResumeFrom::Malformed,
            },
            Some(text) => EventId::read(&text)
                .map_or(ResumeFrom::Malformed, |id| ResumeFrom::Position(id.into())),
        };
        Places { ids, from, count, returned: 0 }
    }

    /// The form and the place to resume of the next channel with a history; `None` if there are too
    /// many of them for one id.
    fn next(&mut self) -> Option<(Form, ResumeFrom)> {
        match self.count {
            1 => Some((Form::POSITIONED, self.from)),
            2..=EventIds::MAX => {
                self.returned += 1;
                let place = self.returned;
                let sent = self.ids.get(place).map(|id| ResumeFrom::Position(id.into()));
                Some((Form { place, ..Form::POSITIONED }, sent.unwrap_or(self.from)))
            }
            _ => None,
        }
    }
}

/// Checks what does not depend on the channels, as for a WebSocket.
fn admit<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    opening: &Opening<'_>,
) -> Result<(), ApiRefusal> {
    let (env, codes) = (context.env, &V::DATA.codes);
    let config = &env.apps.get(app).config;
    if context.draining {
        return Err((503, codes.draining.reason.clone()));
    }
    if env.is_overloaded() || !env.serves(app) {
        if let Some(counters) = env.runtime.counters.get(usize::from(context.conn.core)) {
            counters.refused_overload.add(1);
        }
        return Err((503, codes.overloaded.reason.clone()));
    }
    if !config.enabled {
        return Err((403, "The application is disabled".into()));
    }
    if config.require_tls && !opening.secure {
        return Err((403, "The application accepts only https".into()));
    }
    Ok(())
}

/// What the query of a request for events names.
struct ListenQuery<'q> {
    channels: Vec<Cow<'q, str>>,
    auths: Vec<Cow<'q, str>>,
    socket_id: Option<Cow<'q, str>>,
}

impl<'q> ListenQuery<'q> {
    fn read(text: &'q str) -> Result<ListenQuery<'q>, ApiRefusal> {
        let mut read = ListenQuery { channels: Vec::new(), auths: Vec::new(), socket_id: None };
        for (name, value) in query::pairs(text) {
            if !matches!(name, "channels" | "channel" | "auth" | "socket_id") {
                continue;
            }
            let value = query::decode(value, PlusSign::Literal);
            let value = value.ok_or_else(|| (400, format!("{name} is not UTF-8").into()))?;
            match (name, value) {
                ("channels", Cow::Borrowed(list)) => {
                    read.channels.extend(list.split(',').map(Cow::Borrowed));
                }
                ("channels", Cow::Owned(list)) => {
                    read.channels.extend(list.split(',').map(|name| Cow::Owned(name.to_owned())));
                }
                ("channel", name) => read.channels.push(name),
                ("auth", auth) => read.auths.push(auth),
                (_, id) if read.socket_id.is_none() => read.socket_id = Some(id),
                _ => return Err((400, "There is more than one socket_id".into())),
            }
        }
        Ok(read)
    }
}

/// Checks the names of the channels and the signatures of those that are not public. Returns
/// whether there are any of the latter.
fn authorise<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    query: &ListenQuery<'_>,
) -> Result<bool, ApiRefusal> {
    let entry = context.env.apps.get(app);
    let config = &entry.config;
    let max = config.limits.subscriptions_per_connection;
    if query.channels.is_empty() {
        return Err((400, "The query must name channels".into()));
    }
    if query.channels.len() > max {
        let text = SubscribeRefusal::SubscriptionLimit(max).text("").into_owned();
        return Err((400, text.into()));
    }
    let name_length = V::settings(context.env, config).name_length;
    let (mut seen, mut signed) = (HashSet::new(), Vec::new());
    for name in &query.channels {
        channel::check(V::DATA, name, name_length).map_err(|text| (400, text.into()))?;
        if !seen.insert(&**name) {
            return Err((400, format!("The channel {name} is named twice").into()));
        }
        match channel::kind(V::DATA, name) {
            ChannelKind::Public => {}
            ChannelKind::Private | ChannelKind::Encrypted => signed.push(&**name),
            ChannelKind::Presence | ChannelKind::User => {
                let text = format!("The channel {name} needs a WebSocket, whose client is known");
                return Err((400, text.into()));
            }
        }
    }
    if query.auths.len() > signed.len() {
        return Err((400, "There are more auth than private channels".into()));
    }
    if signed.is_empty() {
        return Ok(false);
    }
    let socket = query.socket_id.as_deref().unwrap_or("");
    if context.env.socket_ids.read(socket).is_err() {
        return Err((400, "Private channels need a socket_id such as 123.456".into()));
    }
    check_signatures(context, app, socket, &signed, &query.auths)?;
    Ok(true)
}

/// Checks the signature of each channel. A wrong one counts as a failure of the client's address.
fn check_signatures(
    context: &DialectContext<'_>,
    app: u32,
    socket: &str,
    channels: &[&str],
    auths: &[Cow<'_, str>],
) -> Result<(), ApiRefusal> {
    let (address, now_s) = (context.peer.ip(), context.now.unix_s);
    if !context.work.may_verify(address, now_s) {
        return Err((429, "Too many wrong signatures in this second".into()));
    }
    let entry = context.env.apps.get(app);
    for (at, name) in channels.iter().enumerate() {
        let auth = auths.get(at).map_or("", |auth| &**auth);
        if commands::is_signed_for(entry, socket, auth, &[b":", name.as_bytes()]) {
            continue;
        }
        context.work.fail(address, now_s);
        if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
            counters.event_streams_unsigned.add(1);
        }
        return Err((401, SubscribeRefusal::Signature.text(name).into_owned().into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<String>, Vec<String>, String), ApiRefusal> {
        let query = ListenQuery::read(text)?;
        let texts = |list: &[Cow<'_, str>]| list.iter().map(|it| it.to_string()).collect();
        let socket_id = query.socket_id.unwrap_or_default().into_owned();
        Ok((texts(&query.channels), texts(&query.auths), socket_id))
    }

    #[test]
    fn listen_query_names_channels_in_order() {
        let strings = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        for (text, channels, auths, socket_id) in [
            ("", &[][..], &[][..], ""),
            ("channels=", &[""], &[], ""),
            ("channels=a", &["a"], &[], ""),
            ("channels=a,b", &["a", "b"], &[], ""),
            ("channels=a%2Cb", &["a", "b"], &[], ""),
            ("channel=a%2Cb&channel=c,d", &["a,b", "c,d"], &[], ""),
            ("channel=a&channels=b,c&channel=d", &["a", "b", "c", "d"], &[], ""),
            ("channels=a,,b", &["a", "", "b"], &[], ""),
            ("auth=k%3A1&channels=a&socket_id=1.2&auth=k:2&x=y", &["a"], &["k:1", "k:2"], "1.2"),
        ] {
            let want = (strings(channels), strings(auths), socket_id.to_owned());
            assert_eq!(read(text), Ok(want), "{text}");
        }
        for text in ["channels=%ff", "channel=%ff", "auth=%ff", "socket_id=1.2&socket_id=1.2"] {
            assert_eq!(read(text).map_err(|refusal| refusal.0), Err(400), "{text}");
        }
    }
}
