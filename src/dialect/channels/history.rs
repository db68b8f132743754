//! Resuming channels after a reconnect, and reading their histories by the HTTP API.
//!
//! A client that sends `polycast:resume` as its first message receives the position of each event
//! of a channel with a history, and may send the positions that it has reached before. Such a
//! position waits for the subscription to its channel.

use super::super::context::DialectContext;
use super::super::effects::Effect;
use super::super::forms::history_of;
use super::super::reply::Answered;
use super::connection::Connection;
use super::positions::{Resuming, position_of, push_position};
use super::reads::{bad_name, parameter, refuse};
use super::reply::{json_error, ok};
use super::vendor::{ProtocolError, Vendor};
use crate::codec::raw::RawMembers;
use crate::hub::{Answer, HistoryPage, Query, ResumeFrom, ResumeRequest};
use crate::mem::Frozen;
use crate::ws::frame;
use std::collections::HashMap;

/// The event that makes a connection receive positions.
pub(super) const RESUME: &str = "polycast:resume";

/// How long a position waits for the subscription to its channel, in seconds.
const WAIT_S: u64 = 30;

/// The default and the maximum of `limit` in a query for a history.
const PAGE: (usize, usize) = (100, 1000);

/// Carries out a resume message, which must be the first one of the connection.
pub(super) fn resume<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    positions: Vec<(String, ResumeFrom)>,
    is_first: bool,
) {
    if !is_first {
        return conn.protocol_error(context, ProtocolError::LateResume);
    }
    let max = context.env.apps.get(conn.app).config.limits.subscriptions_per_connection;
    let is_long = positions.len() > max;
    let positions: HashMap<_, _> = positions.into_iter().take(max).collect();
    let until_s = match positions.is_empty() {
        true => 0,
        false => (context.now.ms.div_ceil(1000) + WAIT_S) as u32,
    };
    conn.who().resuming = Some(Box::new(Resuming { positions, until_s }));
    if is_long {
        conn.protocol_error(context, ProtocolError::ManyPositions(max));
    }
}

impl<V: Vendor> Connection<V> {
    /// The request to the home of a channel to which the client subscribes, if the client receives
    /// positions and the channel has a history.
    pub(super) fn resume_request(
        &mut self,
        context: &DialectContext<'_>,
        name: &str,
    ) -> Option<ResumeRequest> {
        let resuming = self.who.as_mut().and_then(|who| who.resuming.as_mut())?;
        let history = history_of(context.env, self.app, name)?;
        let from = match resuming.positions.remove(name) {
            Some(_) if u64::from(resuming.until_s) * 1000 <= context.now.ms => ResumeFrom::Present,
            Some(ResumeFrom::Rewind(_)) if history.rewind == 0 => ResumeFrom::Present,
            Some(ResumeFrom::Rewind(count)) => ResumeFrom::Rewind(count.min(history.rewind)),
            Some(from) => from,
            None => ResumeFrom::Present,
        };
        resuming.settle();
        Some(ResumeRequest { from, limit: history.limit, view: 0 })
    }

    /// Drops positions whose time is over.
    pub(super) fn drop_positions(&mut self) {
        if let Some(resuming) = self.who.as_mut().and_then(|who| who.resuming.as_mut()) {
            resuming.positions = HashMap::new();
            resuming.settle();
        }
    }

    /// The second in which the waiting positions are dropped; 0 if there are none.
    pub(super) fn positions_until_s(&self) -> u32 {
        let resuming = self.who.as_ref().and_then(|who| who.resuming.as_ref());
        resuming.map_or(0, |resuming| resuming.until_s)
    }
}

/// `GET /channels/{name}/events`: lists the events of a channel's history.
pub(super) fn events<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    name: &str,
    query: &str,
) -> Answered {
    if let Some(problem) = bad_name::<V>(context, app, name) {
        return refuse::<V>(&problem);
    }
    if history_of(context.env, app, name).is_none() {
        return Answered::Now(json_error::<V>(404, "the channel has no history"));
    }
    let after = parameter::<V>(query, "after");
    let after = match (&*after, after.split_once(':').and_then(position_of)) {
        ("", _) => None,
        (_, Some(position)) => Some(position),
        (_, None) => return refuse::<V>("after must be a stream_id and a serial: STREAM:SERIAL"),
    };
    let limit = parameter::<V>(query, "limit");
    let max = match &*limit {
        "" => Some(PAGE.0),
        limit => limit.parse().ok().filter(|limit| (1..=PAGE.1).contains(limit)),
    };
    let Some(max) = max else {
        return refuse::<V>(&format!("limit must be a number from 1 to {}", PAGE.1));
    };
    let query = Query::History { app, name: name.into(), after, max, view: 0 };
    context.effects.push(Effect::Query { query, part: 0 });
    Answered::Later(Box::new(|answers| {
        let page = answers.into_iter().find_map(|(_, answer)| match answer {
            Answer::History(page) => page,
            _ => None,
        });
        match page {
            Some(page) => ok(body_of(&page)),
            None => json_error::<V>(404, "the channel has no history at present"),
        }
    }))
}

fn body_of(page: &HistoryPage) -> Vec<u8> {
    let mut out = br#"{"events":["#.to_vec();
    for (at, (serial, shared)) in page.events.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_kept(&mut out, *serial, &shared.frame);
    }
    out.push(b']');
    push_position(&mut out, Some(page.position));
    out.extend_from_slice(format!(r#","complete":{}}}"#, page.complete).as_bytes());
    out
}

/// Appends an event of the history with the `event` and `data` of its frame, as they were sent.
fn push_kept(out: &mut Vec<u8>, serial: u64, frame: &Frozen) {
    let text = frame::split(frame).and_then(|(_, payload)| str::from_utf8(payload).ok());
    let members = text.and_then(RawMembers::read);
    let raw = |name| members.as_ref().and_then(|it| it.raw(name)).unwrap_or("null");
    let (event, data) = (raw("event"), raw("data"));
    out.extend_from_slice(format!(r#"{{"serial":{serial},"event":"#).as_bytes());
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data.as_bytes());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{SharedFrame, StreamPosition};

    #[test]
    fn history_page_has_events_as_they_were_sent() {
        let event = |payload: &str| {
            let frame = frame::frozen(crate::ws::Opcode::Text, payload.as_bytes());
            SharedFrame { frame: Frozen::new(&frame), compressed: None }
        };
        let page = HistoryPage {
            events: vec![
                (6, event(r#"{"event":"e","channel":"c","data":"{\"a\":1}"}"#)),
                (7, event(r#"{"event":"client-x","channel":"c"}"#)),
            ],
            position: StreamPosition { stream: 10, serial: 7 },
            complete: true,
            view: None,
        };
        let expected = r#"{"events":[{"serial":6,"event":"e","data":"{\"a\":1}"},{"serial":7,"event":"client-x","data":null}],"stream_id":"000000000000000a","serial":7,"complete":true}"#;
        assert_eq!(String::from_utf8(body_of(&page)).as_deref(), Ok(expected));
    }
}
